#!/usr/bin/python3
"""What a request costs: two whydownds beside each other, one of before and one of now.

    tests/bench/polls.py OLD NEW [--rounds N]

Prints the CPU time of the daemon for one request, the median and the least of the rounds, and how many are answered a
second by one connection, the median; both daemons in turn. CPU time is the daemon's own, as the kernel counts it: beside
other work its least tells the most, as that work can only add to it.
Polls of both are the same bytes but for what grows with time, or the benchmark ends.
"""

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path

from client import Connection, call, post
from servers import ALL_STATS, OPEN, Whydownd, test_host

PACKED = "Accept-Encoding: gzip\r\n"
AT_ONCE = 32


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


# What, of how many VMs, and how many requests a round.
PARTS = [
    ("poll", 50, post(ALL_STATS), 2000),
    ("poll, gzip", 50, post(ALL_STATS, PACKED), 2000),
    ("poll", 1000, post(ALL_STATS), 200),
    ("`ping`", 50, post(call("ping")), 2000),
    ("`/v1/domains`", 10, get("/v1/domains"), 2000),
    ("`/v1/health`", 10, get("/v1/health"), 2000),
]

# Times, and numbers that grow.
MOVING = re.compile(rb"<name>(elapsedTime|statsAge|statusTime)</name><value>.*?</value>", re.S)


def spent_ns(pid):
    """Nanoseconds that all threads have run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def measure(daemon, request, count):
    """Microseconds of CPU for one, and how many a second."""
    connection = Connection(daemon.port)
    for _ in range(AT_ONCE):
        connection.send_raw(request)
        connection.receive()
    before, start = spent_ns(daemon.process.pid), time.perf_counter()
    for _ in range(count // AT_ONCE):
        connection.send_raw(request * AT_ONCE)
        for _ in range(AT_ONCE):
            connection.receive()
    took, cpu = time.perf_counter() - start, spent_ns(daemon.process.pid) - before
    connection.close()
    done = count // AT_ONCE * AT_ONCE
    return cpu / done / 1e3, done / took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    wanted = parser.parse_args()
    # A daemon of before may not know these settings, and nothing here needs them.
    OPEN.clear()
    with tempfile.TemporaryDirectory(prefix="wdb") as folder:
        daemons = {}
        try:
            for name in ("old", "new"):
                for count in sorted({part[1] for part in PARTS}):
                    here = Path(folder) / f"{name}{count}"
                    # Nothing is sampled: what is counted is spent on requests.
                    config = "[sampling]\nenabled = false\n"
                    host = test_host(here, count)
                    daemons[name, count] = Whydownd(getattr(wanted, name), here, host, config=config)
            for count in sorted({part[1] for part in PARTS}):
                polls = [MOVING.sub(b"", daemons[name, count].ask(ALL_STATS)) for name in ("old", "new")]
                if polls[0] != polls[1]:
                    raise RuntimeError(f"of {count} VMs the polls differ")
            took = {(name, part): [] for name in ("old", "new") for part in range(len(PARTS))}
            for round_ in range(wanted.rounds):
                for part, (_, count, request, requests) in enumerate(PARTS):
                    # Who is first in one round is second in the next.
                    for name in sorted(("old", "new"), reverse=round_ % 2 == 0):
                        took[name, part].append(measure(daemons[name, count], request, requests))
        finally:
            for daemon in daemons.values():
                daemon.process.kill()
                daemon.process.wait()
    print("| what | VMs | CPU µs, before | now | the least, before | now | a second, before | now |")
    print("|---|---|---|---|---|---|---|---|")
    for part, (what, count, _, _) in enumerate(PARTS):
        (old_cpu, old_rates), (new_cpu, new_rates) = (zip(*took[name, part]) for name in ("old", "new"))
        old, new = statistics.median(old_rates), statistics.median(new_rates)
        cells = [f"{statistics.median(cpu):.1f}" for cpu in (old_cpu, new_cpu)]
        cells += [f"{min(cpu):.2f}" for cpu in (old_cpu, new_cpu)]
        print(f"| {what} | {count} | {' | '.join(cells)} | {old:.0f} | {new:.0f} |")


main()
