"""How many polls a second, and for how much CPU: whydownd, Python's server and nginx, by plain text and TLS, packed or not."""

import gzip
from dataclasses import dataclass

import load
import tls
from client import Connection
from report import number, say, table
from servers import Nginx, Python, Whydownd, test_host
from stage import free_port


@dataclass
class Part:
    """Servers that are measured beside each other, in the same way."""

    title: str
    three: list  # (server, address, the least bytes of an answer)
    how: dict
    pinned: bool = True
    quick: bool = False  # also in a quick run


class Throughput:
    def __init__(self, stage):
        self.stage = stage
        self.daemons, self.pythons, self.sizes = {}, {}, {}

    def start(self):
        stage = self.stage
        self.nginx, self.loose_nginx = (
            stage.keep(Nginx(stage.folder / f"nginx-{workers}", (free_port(), free_port()), workers, core, stage.papers))
            for workers, core in ((1, stage.core), (len(stage.cpus), None))
        )
        for count in stage.given.sizes:
            folder = stage.folder / f"whydownd-{count}"
            self.daemons[count], self.pythons[count] = self._pair(folder, count, stage.core)
            if count == stage.given.middle:
                # Runtimes count their cores once, at the start: on all cores, these are other processes.
                self.loose = self._pair(stage.folder / "not-pinned", count, None)
            plain, packed = self.sizes[count][0]
            say(f"{count} VMs: {plain:,} bytes, {packed:,} packed")
        self._agree()

    def stop(self):
        """Ends the servers, so that they take nothing from what is measured next."""
        servers = [self.nginx, self.loose_nginx, *self.daemons.values(), *self.pythons.values(), *self.loose]
        for server in servers:
            self.stage.drop(server)

    def _pair(self, folder, count, core):
        stage = self.stage
        connect = test_host(folder, count)
        daemon = stage.keep(Whydownd(stage.given.daemon, folder, connect, core, stage.papers)).expect(count)
        answers = [one_answer(daemon.plain, headers) for headers in ("", PACKED)]
        plain, packed = answers
        if gzip.decompress(packed).count(b"<member>") != plain.count(b"<member>"):
            raise RuntimeError("what is packed is not what is plain")
        python = stage.keep(Python(folder, plain, core, stage.papers))
        theirs = [one_answer(python.plain, headers) for headers in ("", PACKED)]
        if gzip.decompress(theirs[1]) != theirs[0]:
            raise RuntimeError("what Python packs is not what it gives plain")
        for nginx in (self.nginx, self.loose_nginx):
            nginx.serve(count, plain, packed)
        self.sizes[count] = [[len(answer) for answer in pair] for pair in (answers, theirs)]
        return daemon, python

    def _agree(self):
        """All servers speak the same TLS with our client."""
        daemon, python = next(iter(self.daemons.values())), next(iter(self.pythons.values()))
        ports = [daemon.tls.port, python.tls.port, self.nginx.ports[1], self.loose_nginx.ports[1]]
        spoken = {tls.spoken(port, self.stage.papers["client"]) for port in ports}
        if len(spoken) != 1:
            raise RuntimeError(f"the servers do not speak the same TLS: {spoken}")
        say(f"TLS: {spoken.pop()}, with certificates of both sides\n")

    def three(self, count, secure, packed, loose=False):
        """The servers with their addresses, and how short an answer may be: elapsedTime grows by a digit now and then,
        and packed sizes vary with it."""
        daemon, python = self.loose if loose else (self.daemons[count], self.pythons[count])
        nginx = self.loose_nginx if loose else self.nginx
        (ours, our_packed), (theirs, their_packed) = self.sizes[count]
        least = (our_packed * 0.9, their_packed * 0.9) if packed else (ours, theirs)
        way = "tls" if secure else "plain"
        return [
            (daemon, getattr(daemon, way), least[0]),
            (python, getattr(python, way), least[1]),
            (nginx, getattr(nginx, way)(count), least[0]),
        ]

    def parts(self):
        for secure in (False, True):
            by = ", TLS" if secure else ""
            for count in self.stage.given.sizes:
                plain, packed = self.three(count, secure, False), self.three(count, secure, True)
                yield Part(f"{count} VMs{by}, 1 connection", plain, {"connections": 1}, quick=not secure)
                busy = 4 if count > 500 else 16
                # In a short round with many long answers, Python would not end enough of them to be counted fairly.
                most = [plain[0], plain[2]] if count > 500 else plain
                yield Part(f"{count} VMs{by}, {busy} connections", most, {"connections": busy}, quick=secure)
                how = {"connections": 1, "packing": "gzip"}
                yield Part(f"{count} VMs{by}, 1 connection, gzip", packed, how, quick=True)
            count = self.stage.given.middle
            all_, how = self.three(count, secure, False, loose=True), {"connections": 16, "threads": 2}
            yield Part(f"{count} VMs{by}, 16 connections, no pinning", all_, how, pinned=False, quick=secure)

    def measure(self):
        stage, given = self.stage, self.stage.given
        parts = [part for part in self.parts() if part.quick or not given.quick]
        found = {(part.title, server.name): [] for part in parts for server, _, _ in part.three}
        # The first round warms caches up and is thrown away.
        for round_ in range(0 if given.quick else -1, given.rounds):
            disturbed = 0
            for part in parts:
                disturbed += not stage.quiet()
                for server, address, least in part.three:
                    seconds, core = 1 if round_ < 0 else given.seconds, stage.client if part.pinned else None
                    result = load.run(
                        server, address, least, seconds=seconds, core=core, shim=stage.certificate_shim, **part.how
                    )
                    if round_ >= 0:
                        found[part.title, server.name].append(result)
            if round_ >= 0:
                say(f"round {round_ + 1} of {given.rounds} is done, {disturbed} of {len(parts)} parts beside other work")
        say()
        self._tell(parts, found)

    @staticmethod
    def _tell(parts, found):
        rows = []
        for part in parts:
            ours = found[part.title, "whydownd"]
            for server, _, _ in part.three:
                theirs = found[part.title, server.name]
                row = [part.title if theirs is ours else "", server.name]
                row += [number(load.median(theirs, field)) for field in ("rate", "cpu_us", "p50_us", "p99_us")]
                if theirs is ours:
                    row += ["", ""]
                else:
                    row += [f"{load.ratio(ours, theirs, 'rate'):.2f}", f"{load.ratio(theirs, ours, 'cpu_us'):.2f}"]
                rows.append(row)
        say("`getAllVmStats`: medians of the rounds; the last two columns say how often as many requests a second whydownd")
        say("answers, and how often as much CPU the other needs for one.\n")
        head = ["what", "server", "requests/s", "CPU µs", "p50 µs", "p99 µs", "whydownd's answers, times", "CPU, times whydownd's"]
        table(head, rows)


PACKED = "Accept-Encoding: gzip\r\n"


def one_answer(address, headers):
    """An answer's body, by plain text."""
    connection = Connection(address.port)
    try:
        connection.send_raw(address.request(headers))
        return connection.receive()
    finally:
        connection.close()
