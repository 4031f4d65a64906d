#!/usr/bin/python3
"""What waiting for the disk costs: two whydownds beside each other, one of before and one of now.

    tests/bench/beside.py OLD NEW [--rounds N] [--sync-ms MS]

Prints how long a destroy takes until it is answered, and how long 1,000 shutdowns at once take until every ending is on
disk, by both daemons in turn. With --sync-ms every sync of the disk takes so long, and the table says how many syncs a
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

    polling = Local(daemon.folder / "socket")
    workers = [threading.Thread(target=work, args=(part,)) for part in range(THREADS)]
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
        took = {"old": ([], []), "new": ([], [])}
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
        sync = statistics.median(disk(folder)) + wanted.sync_ms
        print(f"one sync: {sync:.2f} ms\n")
        print("| what | before | now |\n|---|---|---|")
        old, new = (statistics.median(took[name][0]) for name in ("old", "new"))
        print(f"| a destroy until it is answered, median ms | {old:.2f} | {new:.2f} |")
        print(f"| that is more, in syncs | | {(new - old) / sync:.2f} |")
        old, new = (statistics.median(took[name][1]) for name in ("old", "new"))
        print(f"| {STORM} shutdowns at once until all are on disk, s | {old:.2f} | {new:.2f} |")
        print(f"| endings a second, times those of before | | {old / new:.2f} |")


if __name__ == "__main__":
    main()
