"""The benchmark: starts everything, measures in interleaved rounds, prints tables in Markdown. Started by run.sh."""

import argparse
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import endings
import evidence
import pollers
import process
import sampling
from report import say
from stage import Stage
from throughput import Throughput

PARTS = ("throughput", "pollers", "sampling", "memory", "endings", "evidence")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--only", choices=PARTS, action="append")
    given = parser.parse_args()
    given.sizes = (50,) if given.quick else (50, 500, 5000)
    given.middle = 50 if given.quick else 500
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.seconds = given.seconds or (1 if given.quick else 2)
    given.samples = 10 if given.quick else 200
    given.storm = 100 if given.quick else 1000
    given.guests = 2 if given.quick else 8
    given.only = given.only or PARTS
    return given


def measure(stage):
    given = stage.given
    if {"throughput", "pollers"} & set(given.only):
        throughput = Throughput(stage)
        throughput.start()
        if "throughput" in given.only:
            throughput.measure()
        if "pollers" in given.only:
            pollers.measure(stage, throughput)
        throughput.stop()
    # From here on the clients are threads of this process.
    if stage.client is not None:
        process.pin_self(stage.client)
    if "sampling" in given.only:
        sampling.tell_figures(stage)
        sampling.tell_guests(stage)
    if "memory" in given.only:
        sampling.tell_memory(stage)
    if "endings" in given.only:
        endings.tell_one_by_one(stage)
        endings.tell_storms(stage)
    if "evidence" in given.only:
        evidence.measure(stage)


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="wd-bench-", dir="/var/tmp"))
    stage = Stage(given, folder)
    where = "not pinned" if stage.core is None else f"servers on core {stage.core}, clients on core {stage.client}"
    say(f"{len(stage.cpus)} cores, {where}; Linux {platform.release()}, Python {platform.python_version()};")
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    say(f"TCP by {congestion}; {given.rounds} rounds of {given.seconds} s each\n")
    try:
        measure(stage)
    finally:
        stage.stop()
        shutil.rmtree(folder)
    say(f"took {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
