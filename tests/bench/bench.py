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
    given.sizes = (500,) if given.quick else (50, 500, 5000)
    given.rounds = given.rounds or (1 if given.quick else 7)
    given.seconds = given.seconds or (1 if given.quick else 2)
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
        self.patience = 0 if given.quick else 8  # seconds to wait for others to leave the machine alone

    def keep(self, server):
        self.running.append(server)
        return server

    def stop(self):
        for server in self.running:
            process.stop(server.process)

    def start(self):
        self.daemons, self.pythons, self.fresh_mb, self.least = {}, {}, {}, {}
        self.nginxes = [
            self.keep(Nginx(self.folder / f"nginx-{workers}", free_port(), workers, core))
            for workers, core in ((1, self.core), (len(self.cpus), None))
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
            if count == 500:
                # Runtimes count their cores once, at the start: on all cores, these are other processes.
                free = self.folder / "not-pinned"
                self.loose = [self.keep(Whydownd(self.given.daemon, free, count, None))]
                self.loose.append(self.keep(Python(free, plain, None)))
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
            # In a short round with many long answers, Python would not end enough of them to be counted fairly.
            most = two if count > 500 else three
            yield f"{count} VMs, {busy} connections", most, {"connections": busy, "least_bytes": plain}
            how = {"connections": 1, "packing": "gzip", "least_bytes": packed}
            yield f"{count} VMs, 1 connection, gzip", two, how
            if count == 500:
                every = [*((server, server.url) for server in self.loose), (all_, all_.url_of(count))]
                how = {"connections": 16, "threads": 2, "least_bytes": plain}
                yield f"{count} VMs, 16 connections, no pinning", every, how

    def measure(self):
        plans = list(self.plans())
        found = {(title, server.name): [] for title, servers, _ in plans for server, _ in servers}
        # The first round warms caches up and is thrown away.
        for round_ in range(0 if self.given.quick else -1, self.given.rounds):
            disturbed = 0
            for title, servers, how in plans:
                disturbed += not process.wait_for_quiet(self.patience)
                free = "no pinning" in title
                for server, url in servers:
                    seconds = 1 if round_ < 0 else self.given.seconds
                    result = load.run(
                        server, url, seconds=seconds, core=None if free else self.client, **how
                    )
                    if round_ >= 0:
                        found[title, server.name].append(result)
            if round_ >= 0:
                say(f"round {round_ + 1} of {self.given.rounds} is done, {disturbed} of {len(plans)} parts beside other work")
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
        daemon = self.keep(Whydownd(self.given.daemon, self.folder / "one", 500, self.core))
        process.wait_for_quiet(self.patience)
        seen, durable = endings.one_by_one(daemon, range(self.given.samples))
        process.stop(daemon.process)
        rows = [
            ["shutdown sent, until a poll says Down", *both(seen)],
            ["from then until the ending is on disk", *both(durable)],
            ["the disk alone: one fdatasync of a page", *both(endings.disk(self.folder))],
        ]
        say(f"One of 500 VMs is shut down, {self.given.samples} times: milliseconds.\n")
        table(["what", "median", "p99"], rows)

    def storm(self):
        count, pause = self.given.storm, 0.005
        storms = []
        for turn in range(self.given.rounds):
            process.wait_for_quiet(self.patience)
            daemon = self.keep(Whydownd(self.given.daemon, self.folder / f"storm-{turn}", count, self.core))
            storms.append(endings.storm(daemon, count, 16, pause))
            process.stop(daemon.process)
        calm = [spent for storm in storms for spent in storm.calm]
        busy = [spent for storm in storms for spent in storm.busy]
        say(f"{count} VMs are shut down at once from 16 connections, with a poll every {pause * 1000:.0f} ms beside it,")
        say(f"{len(storms)} times: milliseconds.\n")
        rows = [
            [f"getAllVmStats before it ({len(calm)} polls)", *both(calm)],
            [f"getAllVmStats in it ({len(busy)} polls)", *both(busy)],
        ]
        table(["what", "median", "p99"], rows)
        rows = [
            [what, *(number(pick(getattr(storm, field) for storm in storms)) for pick in (statistics.median, max))]
            for what, field in (
                ("all shutdowns answered", "answered"),
                ("all shown Down", "down"),
                ("all on disk", "durable"),
            )
        ]
        table(["from the start until", "median", "most"], rows)


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
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    say(f"TCP by {congestion}; {given.rounds} rounds of {given.seconds} s each\n")
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


if __name__ == "__main__":
    main()
