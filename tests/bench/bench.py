"""The benchmark: starts everything, measures in interleaved rounds, prints tables in Markdown. Started by run.sh."""

import argparse
import gzip
import platform
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import endings
import load
import process
from servers import ALL_STATS, Nginx, Python, Whydownd


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int)
    given = parser.parse_args()
    given.sizes = (50, 500) if given.quick else (50, 500, 5000)
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.seconds = given.seconds or (1 if given.quick else 3)
    given.samples = 10 if given.quick else 200
    given.storm = 100 if given.quick else 1000
    return given


def say(text=""):
    print(text, flush=True)


def table(head, rows):
    say("| " + " | ".join(head) + " |")
    say("|" + "---|" * len(head))
    for row in rows:
        say("| " + " | ".join(row) + " |")
    say()


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Bench:
    def __init__(self, given, folder):
        self.given, self.folder, self.running = given, folder, []
        cpus = process.cores()
        # The server has a core and so has the client; without a second core nothing is gained by pinning.
        self.core, self.client = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
        self.cpus = cpus

    def keep(self, server):
        self.running.append(server)
        return server

    def stop(self):
        for server in self.running:
            process.stop(server.process)

    def start(self):
        self.daemons, self.pythons, self.fresh_mb, self.least = {}, {}, {}, {}
        one, all_ = 1, len(self.cpus)
        self.nginxes = [
            self.keep(Nginx(self.folder / f"nginx-{workers}", free_port(), workers, self.core))
            for workers in dict.fromkeys((one, all_))
        ]
        for count in self.given.sizes:
            daemon = self.keep(Whydownd(self.given.daemon, self.folder / f"whydownd-{count}", count, self.core))
            self.fresh_mb[count] = process.memory_mb(daemon.process)
            plain = daemon.ask(ALL_STATS)
            packed = daemon.ask(ALL_STATS, "Accept-Encoding: gzip\r\n")
            if gzip.decompress(packed).count(b"<member>") != plain.count(b"<member>"):
                raise RuntimeError("what is packed is not what is plain")
            # elapsedTime grows by a digit now and then, and packed sizes vary with it.
            self.least[count] = (len(plain), len(packed) * 0.9)
            self.daemons[count] = daemon
            self.pythons[count] = self.keep(Python(self.folder / f"whydownd-{count}", plain, self.core))
            for nginx in self.nginxes:
                nginx.serve(count, plain, packed)
            say(f"{count} VMs: {len(plain):,} bytes, {len(packed):,} packed")
        say()

    def plans(self):
        """What is measured beside each other: a title, the servers with their addresses, and how wrk asks."""
        one, all_ = self.nginxes[0], self.nginxes[-1]
        for count in self.given.sizes:
            daemon, python = self.daemons[count], self.pythons[count]
            three = [(daemon, daemon.url), (python, python.url), (one, one.url_of(count))]
            two = [three[0], three[2]]
            busy = 4 if count > 500 else 16
            plain, packed = self.least[count]
            yield f"{count} VMs, 1 connection", three, {"connections": 1, "least_bytes": plain}
            yield f"{count} VMs, {busy} connections", three, {"connections": busy, "least_bytes": plain}
            how = {"connections": 1, "packing": "gzip", "least_bytes": packed}
            yield f"{count} VMs, 1 connection, gzip", two, how
            if count == 500:
                every = [*three[:2], (all_, all_.url_of(count))]
                yield f"{count} VMs, 16 connections, no pinning", every, {"connections": 16, "threads": 2, "least_bytes": plain}

    def measure(self):
        plans = list(self.plans())
        found = {(title, server.name): [] for title, servers, _ in plans for server, _ in servers}
        for round_ in range(-1, self.given.rounds):
            for title, servers, how in plans:
                free = "no pinning" in title
                for server, url in servers:
                    if free:
                        process.pin(server.process, self.cpus)
                    # The round before the first warms caches up and is thrown away.
                    seconds = 1 if round_ < 0 else self.given.seconds
                    if round_ < 0 and self.given.quick:
                        continue
                    result = load.run(
                        server, url, seconds=seconds, core=None if free else self.client, **how
                    )
                    if free and self.core is not None:
                        process.pin(server.process, {self.core})
                    if round_ >= 0:
                        found[title, server.name].append(result)
            if round_ >= 0:
                say(f"round {round_ + 1} of {self.given.rounds} is done")
        say()
        rows = []
        for title, servers, _ in plans:
            ours = found[title, "whydownd"]
            for server, _ in servers:
                theirs = found[title, server.name]
                row = [title, server.name]
                row += [number(load.median(theirs, field)) for field in ("rate", "cpu_us", "p50_us", "p99_us")]
                if server.name == "whydownd":
                    row += ["", ""]
                else:
                    row += [f"{load.ratio(ours, theirs, 'rate'):.2f}", f"{load.ratio(theirs, ours, 'cpu_us'):.2f}"]
                rows.append(row)
        say("getAllVmStats: medians; the last two say how often as many requests a second whydownd answers,")
        say("and how often as much CPU the other needs for one.\n")
        head = ["what", "server", "requests/s", "CPU µs", "p50 µs", "p99 µs", "× requests/s", "× CPU"]
        table(head, rows)

    def memory(self):
        rows = []
        for count, daemon in self.daemons.items():
            now, most = process.memory_mb(daemon.process), process.memory_mb(daemon.process, "VmHWM")
            rows.append([str(count), number(self.fresh_mb[count]), number(now), number(most)])
        say("Memory of whydownd in MB, libvirt's test host included.\n")
        table(["VMs", "after the first poll", "after all polls", "most"], rows)

    def one_by_one(self):
        rows = []
        for words, settle_ms in (("as delivered", None), ("settle_ms = 0", 0)):
            daemon = self.keep(
                Whydownd(self.given.daemon, self.folder / f"one-{settle_ms}", 500, self.core, settle_ms)
            )
            seen, durable = endings.one_by_one(daemon, range(self.given.samples))
            process.stop(daemon.process)
            rows.append([words, "until a poll says Down", *both(seen)])
            rows.append([words, "from then until it is on disk", *both(durable)])
        rows.append(["the disk alone", "one fdatasync of a page", *both(endings.disk(self.folder))])
        say(f"One of 500 VMs is shut down, {self.given.samples} times: milliseconds.\n")
        table(["how", "what", "median", "p99"], rows)

    def storm(self):
        count, pause = self.given.storm, 0.005
        rows = []
        for words, settle_ms in (("as delivered", None), ("settle_ms = 0", 0)):
            daemon = self.keep(
                Whydownd(self.given.daemon, self.folder / f"storm-{settle_ms}", count, self.core, settle_ms)
            )
            calm = endings.polls(daemon, 1 if self.given.quick else 5, pause)
            spent, answered, down, durable = endings.storm(daemon, count, 16, pause)
            process.stop(daemon.process)
            rows.append([words, *both(calm), *both(spent), str(len(spent)), *map(number, (answered, down, durable))])
        say(f"{count} VMs are shut down at once from 16 connections, with a poll every {pause * 1000:.0f} ms: milliseconds.\n")
        head = ["how", "calm poll", "p99", "poll in the storm", "p99", "polls", "all answered", "all Down", "all on disk"]
        table(head, rows)


def both(samples):
    return number(statistics.median(samples)), number(endings.percentile(samples, 0.99))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="whydown-bench-", dir="/var/tmp"))
    bench = Bench(given, folder)
    where = "not pinned" if bench.core is None else f"servers on core {bench.core}, clients on core {bench.client}"
    say(f"{len(bench.cpus)} cores, {where}; Linux {platform.release()}, Python {platform.python_version()};")
    say(f"{given.rounds} rounds of {given.seconds} s each\n")
    try:
        bench.start()
        bench.measure()
        bench.memory()
        if bench.client is not None:
            process.pin_self(bench.client)
        bench.one_by_one()
        bench.storm()
    finally:
        bench.stop()
        shutil.rmtree(folder)
    say(f"took {time.monotonic() - started:.0f} s")


main()
