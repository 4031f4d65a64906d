"""What sampling costs, and whether a poll pays for it; and the memory of a daemon that knows figures and devices of all.

libvirt's test driver gives devices and no figures, so a library that is loaded before libvirt gives them (see
preload/figures.c): they change with every sample, so that every VM is written anew each time, which is the worst case.
What it leaves out is QEMU's own time to answer; a few real QEMU guests have that.
"""

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import load
import preload
import process
from client import Connection
from guests import Guests
from report import both, number, say, table
from servers import Whydownd, test_host
from throughput import PACKED, one_answer

#: How long the daemon is watched, in seconds, and polled meanwhile: twice the longest interval that is compared.
SECONDS, EVERY = 10, 0.02


@dataclass
class Setting:
    """One way to sample, and what it was found to cost."""

    title: str
    config: str
    calls: int | None = None
    daemon: object = None
    bytes: int = 0
    alone: list = field(default_factory=list)  # CPU ms a second while nobody polls
    polls: list = field(default_factory=list)  # ms until a poll is answered
    poll_us: list = field(default_factory=list)  # CPU µs a poll, without what the daemon needs alone
    flat: list = field(default_factory=list)  # wrk's findings


def settings(quick):
    for seconds in (1,) if quick else (1, 5):
        yield Setting(f"every {seconds} s", f"[sampling]\ninterval_s = {seconds}\n")
    yield Setting("before, and no more", "[sampling]\ninterval_s = 1\nunresponsive_after_s = 3600\n", calls=2)
    yield Setting("never", "[sampling]\nenabled = false\n")


def figures_are_there(daemon):
    """Two samples are known of each VM: there are rates."""
    body = one_answer(daemon.plain, "")
    return body.count(b"<name>cpuUser</name>") == body.count(b"<name>vmId</name>")


def with_figures(stage, name, count, config, core, calls=None):
    """A daemon with devices and figures of `count` VMs, which change until `calls` samples were taken."""
    folder = stage.folder / name
    env = preload.environment(stage.figures_shim, **({"FIGURES_CALLS": str(calls)} if calls else {}))
    connect = test_host(folder, count, devices=True)
    daemon = Whydownd(stage.given.daemon, folder, connect, core, stage.papers, config, env)
    return stage.keep(daemon).expect(count, sampled="enabled = false" not in config)


def rest(all_, seconds=5):
    """Waits until what a start leaves to do is done: no daemon uses more than a twentieth of a core, or time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = [process.cpu_seconds(one.daemon.process) for one in all_]
        time.sleep(0.3)
        if all(process.cpu_seconds(one.daemon.process) - cpu < 0.015 for one, cpu in zip(all_, before, strict=True)):
            return


def watch(all_, seconds):
    """CPU of each daemon while nobody polls, then while one client polls them all in turn."""
    before = [process.cpu_seconds(one.daemon.process) for one in all_]
    time.sleep(seconds)
    for one, start in zip(all_, before, strict=True):
        one.alone.append((process.cpu_seconds(one.daemon.process) - start) * 1e3 / seconds)
    connections = [Connection(one.daemon.port) for one in all_]
    request = all_[0].daemon.plain.request()
    before = [process.cpu_seconds(one.daemon.process) for one in all_]
    start, turns = time.perf_counter(), 0
    while (due := start + turns * EVERY) < start + seconds:
        time.sleep(max(0, due - time.perf_counter()))
        for one, connection in zip(all_, connections, strict=True):
            asked = time.perf_counter()
            connection.send_raw(request)
            body = connection.receive()
            one.polls.append((time.perf_counter() - asked) * 1e3)
            one.bytes = len(body)
        turns += 1
    took = time.perf_counter() - start
    for one, connection, cpu in zip(all_, connections, before, strict=True):
        spent = process.cpu_seconds(one.daemon.process) - cpu
        one.poll_us.append((spent * 1e6 - one.alone[-1] * 1e3 * took) / turns)
        connection.close()


def flat_out(stage, all_):
    for one in all_:
        how = {"connections": 1, "seconds": stage.given.seconds, "core": stage.client}
        one.flat.append(load.run(one.daemon, one.daemon.plain, one.bytes * 0.9, shim=None, **how))


def tell(all_):
    base = next(one for one in all_ if one.calls or one is all_[-1])
    rows = []
    for one in all_:
        poll, flat = statistics.median(one.poll_us), load.median(one.flat, "cpu_us")
        rows.append(
            [one.title, number(one.bytes / 1000), f"{statistics.median(one.alone):.2f}", number(poll)]
            + [f"{poll / statistics.median(base.poll_us):.2f}", *both(one.polls)]
            + [number(flat), f"{load.ratio(one.flat, base.flat, 'cpu_us'):.2f}"]
        )
    head = ["sampled", "KB an answer", "CPU ms a second, nobody polls", f"CPU µs a poll, one every {EVERY * 1e3:.0f} ms, without that"]
    head += [f"times that of *{base.title}*", "median ms", "p99 ms", "CPU µs a poll, flat out, all of it", f"times that of *{base.title}*"]
    table(head, rows)


def tell_figures(stage):
    """Sampling of the middle number of VMs, with figures that always change."""
    count, given = stage.given.middle, stage.given
    all_ = list(settings(given.quick))
    for number_, one in enumerate(all_):
        one.daemon = with_figures(stage, f"sampled-{number_}", count, one.config, stage.core, one.calls)
    for one in all_[:-1]:
        process.wait_for("two samples", lambda one=one: figures_are_there(one.daemon))
    for _ in range(given.rounds):
        stage.quiet()
        rest(all_)
        watch(all_, 1 if given.quick else SECONDS)
        flat_out(stage, all_)
    for one in all_:
        stage.drop(one.daemon)
    say(f"Sampling of {count} VMs, each with two disks and a network interface, and all figures new in every sample.\n")
    tell(all_)


def tell_guests(stage):
    """The same with real QEMU guests; one daemon after another, as only one may hold them."""
    given = stage.given
    guests = Guests(stage, given.guests)
    all_ = [one for one in settings(given.quick) if not one.calls]
    try:
        guests.start()
        for _ in range(1 if given.quick else 2):
            for one in all_:
                stage.quiet()
                one.daemon = guests.daemon(one.config)
                if one.title.startswith("every"):
                    process.wait_for("two samples", lambda one=one: figures_are_there(one.daemon))
                rest([one])
                watch([one], 1 if given.quick else SECONDS)
                flat_out(stage, [one])
                stage.drop(one.daemon)
    finally:
        guests.stop()
    say(f"Sampling of {given.guests} real QEMU guests, each with a disk and a network interface; medians.\n")
    tell(all_)


def host_mb(connect):
    """What libvirt's test host takes of the daemon's memory."""
    command = [sys.executable, Path(__file__).resolve().parent / "hostsize.py", connect]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def tell_memory(stage):
    """The most that a daemon takes: many VMs, polled plain and packed, by both ranges and by TLS; without devices, with
    them, and with figures that change every second."""
    given = stage.given
    rows = []
    for count in given.sizes:
        known = (
            ("neither", False, False, 1),
            ("devices", True, False, 1),
            ("devices, figures, every 5 s", True, True, 5),
            ("devices, figures, every second", True, True, 1),
        )
        for what, devices, figures, interval in known[-1:] if given.quick else known:
            folder = stage.folder / f"memory-{count}-{devices}-{figures}-{interval}"
            connect = test_host(folder, count, devices)
            env = preload.environment(stage.figures_shim) if figures else None
            config = f"[sampling]\ninterval_s = {interval}\n"
            daemon = stage.keep(Whydownd(given.daemon, folder, connect, None, stage.papers, config, env)).expect(count)
            if figures:
                process.wait_for("two samples", lambda daemon=daemon: figures_are_there(daemon))
            size = len(one_answer(daemon.plain, ""))
            end = time.monotonic() + (1 if given.quick else 10)
            while time.monotonic() < end:
                for headers in ("", PACKED, "X-Whydown-Exit-Reasons: full\r\n"):
                    one_answer(daemon.plain, headers)
            load.run(daemon, daemon.tls, size * 0.9, connections=4, seconds=given.seconds, core=stage.client,
                     shim=stage.certificate_shim)  # fmt: skip
            now, most = process.memory_mb(daemon.process), process.memory_mb(daemon.process, "VmHWM")
            stage.drop(daemon)
            host = host_mb(connect)
            rows.append([str(count), what, number(size / 1000), *map(number, (now, most, host, most - host))])
    say("Memory of whydownd in MB, polled plain, packed, by both ranges of exit reasons, then by TLS")
    say("on four connections. libvirt's test host lives in the same process: its part is that of a process that only opens it.\n")
    table(["VMs", "known of each", "KB an answer", "at the end", "the most", "of it the test host", "the most without it"], rows)
