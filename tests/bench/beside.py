#!/usr/bin/python3
"""What waiting for the disk costs: two whydownds beside each other, one of before and one of now.

    tests/bench/beside.py OLD NEW [--rounds N] [--sync-ms MS]

Prints how long a destroy takes until it is answered, and how long 1,000 shutdowns at once take until every ending is on
disk, through the daemon and by another client of the same libvirt, by both daemons in turn. With --sync-ms every sync of the disk takes so long, and the table says how many syncs a
destroy waits for.
"""

import argparse
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from client import Connection, call
from endings import DOWN, NOT_DURABLE, disk
from servers import ALL_STATS, OPEN, Whydownd, test_host, vm_id

HERE = Path(__file__).resolve().parent
DESTROYS, STORM, THREADS = 100, 1000, 16


# A libvirtd of one's own, with its folders bound to some below $1.
INSIDE = """
for pair in /etc/libvirt:etc /run/libvirt:run /var/lib/libvirt:lib /var/log/libvirt:log /var/cache/libvirt:cache; do
    mkdir -p "${pair%%:*}" "$1/${pair##*:}"
    mount --bind "$1/${pair##*:}" "${pair%%:*}"
done
printf 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n' > /etc/libvirt/libvirtd.conf
exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file "$1/pid"
"""


class Libvirtd:
    """A libvirtd whose test driver all of its clients share."""

    def __init__(self, folder):
        folder.mkdir()
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", INSIDE, "sh", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.uri = f"test+unix:///default?socket={folder}/run/libvirt-sock"
        for _ in range(600):
            if subprocess.run(["virsh", "-c", self.uri, "version"], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        lines = []
        for number in range(STORM):
            document = folder / f"{number}.xml"
            document.write_text(
                f"<domain type='test'><name>bench{number}</name><uuid>{vm_id(number)}</uuid><memory>8192</memory>"
                "<os><type>hvm</type></os></domain>")
            lines.append(f"define {document}")
        self.asked = 0
        # The driver forgets everything with its last client.
        self.shell = subprocess.Popen(["virsh", "-q", "-c", self.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True)
        self.virsh(lines)

    def virsh(self, lines):
        self.asked += 1
        done = f"done-{self.asked}-lines"
        self.shell.stdin.write("\n".join([*lines, f"echo {done}", ""]))
        self.shell.stdin.flush()
        while done not in (said := self.shell.stdout.readline()):
            if not said:
                raise RuntimeError("virsh ended")

    def stop(self):
        self.shell.kill()
        self.shell.wait()
        self.process.kill()
        self.process.wait()


def by_others(libvirtd, daemon):
    """Seconds until 1,000 VMs that another client destroys are Down, with every ending on disk."""
    lines = [f"destroy bench{number}" for number in range(STORM)]
    other = threading.Thread(target=libvirtd.virsh, args=(lines,))
    return until_all_are_down(daemon, [other])


class Local(Connection):
    """A connection by the unix socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(str(path))
        self.rest = b""

    def ask(self, body, headers=""):
        head = f"POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)
        return self.receive()


def done(reply):
    if b"<name>code</name><value><int>0</int>" not in reply:
        raise RuntimeError(f"answered {reply!r}")


def destroys(daemon):
    """Milliseconds of each destroy, one after another."""
    connection, spent = Local(daemon.folder / "socket"), []
    for number in range(DESTROYS):
        request = call("destroy", vm_id(number))
        start = time.perf_counter()
        done(connection.ask(request))
        spent.append((time.perf_counter() - start) * 1e3)
    connection.close()
    return spent


def storm(daemon):
    """Seconds until 1,000 VMs that are shut down at once are Down, with every ending on disk."""
    def work(part):
        connection = Local(daemon.folder / "socket")
        for number in range(part, STORM, THREADS):
            done(connection.ask(call("shutdown", vm_id(number), "0", "0")))
        connection.close()

    return until_all_are_down(daemon, [threading.Thread(target=work, args=(part,)) for part in range(THREADS)])


def until_all_are_down(daemon, workers):
    polling = Local(daemon.folder / "socket")
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    while True:
        body = polling.ask(ALL_STATS)
        if body.count(DOWN) == STORM and NOT_DURABLE not in body:
            break
        if time.perf_counter() - start > 300:
            raise RuntimeError(f"{body.count(DOWN)} of {STORM} VMs are Down after five minutes")
        time.sleep(0.01)
    spent = time.perf_counter() - start
    for worker in workers:
        worker.join()
    polling.close()
    return spent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sync-ms", type=int, default=0)
    wanted = parser.parse_args()
    # A daemon of before may not know these settings, and nothing here needs them.
    OPEN.clear()
    with tempfile.TemporaryDirectory(prefix="wdb") as folder:
        folder = Path(folder)
        env = None
        if wanted.sync_ms:
            source = HERE.parent / "kills/slow_sync.c"
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", folder / "slow.so", source, "-ldl"], check=True)
            (folder / "sync").write_text(str(wanted.sync_ms))
            env = {**os.environ, "LD_PRELOAD": str(folder / "slow.so"), "SLOW_SYNC_FILE": str(folder / "sync")}
        took = {"old": ([], [], []), "new": ([], [], [])}
        libvirtd = Libvirtd(folder / "libvirtd")
        for number in range(wanted.rounds):
            # Who is first in one round is second in the next.
            for name in sorted(took, reverse=number % 2 == 0):
                for what, count in enumerate((DESTROYS, STORM)):
                    here = folder / f"{name}{number}{what}"
                    host = test_host(here, count)
                    config = "[sampling]\nenabled = false\n"
                    daemon = Whydownd(getattr(wanted, name), here, host, config=config, env=env)
                    try:
                        took[name][what].extend(destroys(daemon) if what == 0 else [storm(daemon)])
                    finally:
                        daemon.process.kill()
                        daemon.process.wait()
                libvirtd.virsh([f"start bench{number}" for number in range(STORM)])
                here = folder / f"{name}{number}others"
                config = "[sampling]\nenabled = false\n"
                daemon = Whydownd(getattr(wanted, name), here, libvirtd.uri, config=config, env=env)
                try:
                    took[name][2].append(by_others(libvirtd, daemon))
                finally:
                    daemon.process.kill()
                    daemon.process.wait()
        libvirtd.stop()
        sync = statistics.median(disk(folder)) + wanted.sync_ms
        print(f"one sync: {sync:.2f} ms\n")
        print("| what | before | now |\n|---|---|---|")
        old, new = (statistics.median(took[name][0]) for name in ("old", "new"))
        print(f"| a destroy until it is answered, median ms | {old:.2f} | {new:.2f} |")
        print(f"| that is more, in syncs | | {(new - old) / sync:.2f} |")
        old, new = (statistics.median(took[name][1]) for name in ("old", "new"))
        print(f"| {STORM} shutdowns through the daemon until all are on disk, s | {old:.2f} | {new:.2f} |")
        print(f"| endings a second, times those of before | | {old / new:.2f} |")
        old, new = (statistics.median(took[name][2]) for name in ("old", "new"))
        print(f"| {STORM} destroys by another client until all are on disk, s | {old:.2f} | {new:.2f} |")
        print(f"| endings a second, times those of before | | {old / new:.2f} |")


if __name__ == "__main__":
    main()
