"""What an ending costs whydownd altogether, and its witnesses of it: real QEMU guests, killed with SIGKILL.

libvirt's QEMU driver runs inside the daemon here, on threads of its own, whose work is told apart by their names.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path

import process
from guests import Guests
from report import number, say, table
from servers import ALL_STATS

#: Longer than an ending takes to be decided, with what it waits for (`deciding.settle_ms`).
WAIT_S = 1.0

#: The threads that only gather evidence, by name.
WITNESSES = ("exit-watch", "kernel-log", "signal-trace")
#: All that are whydownd's: the witnesses, what decides, asks libvirt and answers, what hears libvirt, and the ledger.
OURS = (*WITNESSES, "whydownd", "libvirt-link", "libvirt-loop", "libvirt-teller", "ledger")

CONFIG = "[sampling]\nenabled = false\n[witness]\ntracefs = '{}'\n"


def by_thread(pid):
    """Milliseconds of CPU of each thread name so far."""
    spent = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, ran = (task / "comm").read_text().strip(), (task / "schedstat").read_text().split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        spent[name] = spent.get(name, 0) + int(ran) / 1e6
    return spent


def spent_while(daemon, act):
    """Milliseconds of CPU while `act` is done and its consequences are waited for: all, whydownd's own, and the
    ledger's and the witnesses' of it."""
    pid = daemon.process.pid
    before, threads = process.cpu_seconds(daemon.process), by_thread(pid)
    act()
    time.sleep(WAIT_S)
    after = by_thread(pid)
    of = lambda names: sum(after.get(name, 0) - threads.get(name, 0) for name in names)  # noqa: E731
    return (process.cpu_seconds(daemon.process) - before) * 1e3, of(OURS), of(["ledger"]), of(WITNESSES)


def endings(daemon, pids):
    """Kills one after another. Milliseconds of CPU an ending, without what the daemon needs at rest."""
    rest = [spent_while(daemon, lambda: None) for _ in range(3)]
    resting = [statistics.median(part) for part in zip(*rest, strict=True)]
    found = []
    for count, pid in enumerate(pids, 1):
        spent = spent_while(daemon, lambda pid=pid: os.kill(pid, signal.SIGKILL))
        found.append([part - idle for part, idle in zip(spent, resting, strict=True)])
        down = daemon.ask(ALL_STATS).count(b"<string>Down</string>")
        if down != count:
            raise RuntimeError(f"{count} were killed, and {down} are Down:\n{daemon.log.read_text()}")
    return found


@contextlib.contextmanager
def tracing(folder):
    """The kernel's tracing, mounted for us; empty where that is not allowed."""
    place = folder / "tracing"
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tracefs", "tracefs", place], check=False, capture_output=True)
    try:
        yield str(place) if mounted.returncode == 0 else ""
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", place], check=True)


def measure(stage):
    """Kills guests under a daemon that traces signals and under one that does not, and prints what it cost."""
    with tracing(stage.folder) as place:
        found = {"with tracing of signals": (place, []), "without": ("", [])}
        if not place:
            say("Signals cannot be traced here: tracefs cannot be mounted.\n")
            del found["with tracing of signals"]
        for turn in range(stage.given.rounds):
            for number_, (tracefs, all_) in enumerate(found.values()):
                stage.quiet()
                all_ += one_daemon(stage, f"evidence-{turn}-{number_}", tracefs)
    rows = []
    for what, (_, all_) in found.items():
        parts = [statistics.median(part) for part in zip(*all_, strict=True)]
        rows.append([what, str(len(all_)), *map(number, parts)])
    say("CPU of a whydownd for an ending, with libvirt's own driver in the same process: milliseconds, medians.\n")
    table(["", "endings", "all of the process", "whydownd's threads", "of it the ledger's", "the witnesses'"], rows)


def one_daemon(stage, name, tracefs):
    guests = Guests(stage, stage.given.guests, name)
    try:
        guests.start()
        daemon = guests.daemon(CONFIG.format(tracefs))
        process.wait_for("the guests", lambda: guests.up(daemon))
        found = endings(daemon, guests.pids())
        stage.drop(daemon)
    finally:
        guests.stop()
    return found
