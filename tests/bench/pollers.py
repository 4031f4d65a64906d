"""Sixteen managers, each with a connection that it keeps: polling at an interval, and as fast as they can.

At an interval the cores fall asleep between the polls, so it takes longer than under load: that is what managers see.
"""

import statistics
import threading
import time

import load
import process
import tls
from client import Connection
from report import number, percentile, say, table

POLLERS = 16


def _poll(address, due, until, interval, spent, failed):
    try:
        context = tls.client_context(address.papers) if address.papers else None
        connection = Connection(address.port, context)
        request = address.request()
        while due < until:
            time.sleep(max(0, due - time.perf_counter()))
            asked = time.perf_counter()
            connection.send_raw(request)
            connection.receive()
            spent.append((time.perf_counter() - asked) * 1e6)
            due += interval
        connection.close()
    except Exception as error:  # noqa: BLE001 - told to the thread that measures
        failed.append(error)


def at_interval(server, address, interval, seconds):
    """Microseconds of each poll, and of the server's CPU for one of them. The pollers come evenly spread."""
    spent, failed = [], []
    start = time.perf_counter() + 0.2  # all are connected by then
    workers = [
        threading.Thread(
            target=_poll, args=(address, start + interval * part / POLLERS, start + seconds, interval, spent, failed)
        )
        for part in range(POLLERS)
    ]
    for worker in workers:
        worker.start()
    time.sleep(max(0, start - 0.02 - time.perf_counter()))
    before = process.cpu_seconds(server.process)
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    cpu = (process.cpu_seconds(server.process) - before) * 1e6 / len(spent)
    return spent, cpu


def measure(stage, throughput):
    """Beside each other: whydownd, Python's server, nginx; by plain text and by TLS."""
    given = stage.given
    count, interval = given.middle, 0.25 if given.quick else 1.0
    seconds = 1 if given.quick else 5
    ways = {", TLS" if secure else "": throughput.three(count, secure, False) for secure in (False, True)}
    slow = {(way, server.name): ([], []) for way, three in ways.items() for server, _, _ in three}
    fast = {key: [] for key in slow}
    for _ in range(given.rounds):
        for way, three in ways.items():
            stage.quiet()
            for server, address, least in three:
                spent, cpu = at_interval(server, address, interval, seconds)
                slow[way, server.name][0].extend(spent)
                slow[way, server.name][1].append(cpu)
            for server, address, least in three:
                how = {"connections": POLLERS, "seconds": given.seconds, "core": stage.client}
                fast[way, server.name].append(load.run(server, address, least, shim=stage.certificate_shim, **how))
    say(f"{POLLERS} pollers of {count} VMs, each on its own connection: microseconds.\n")
    rows = []
    for way, three in ways.items():
        for server, _, _ in three:
            spent, cpu = slow[way, server.name]
            ours = statistics.median(slow[way, "whydownd"][1])
            rows.append(
                [f"each every {interval:g} s{way}", server.name, f"{len(spent)} polls"]
                + [number(value) for value in (statistics.median(spent), percentile(spent, 0.99), statistics.median(cpu))]
                + [f"{statistics.median(cpu) / ours:.2f}" if server.name != "whydownd" else ""]
            )
        for server, _, _ in three:
            found, ours = fast[way, server.name], fast[way, "whydownd"]
            rows.append(
                [f"flat out{way}", server.name, f"{number(load.median(found, 'rate'))} a second"]
                + [number(load.median(found, field)) for field in ("p50_us", "p99_us", "cpu_us")]
                + [f"{load.ratio(found, ours, 'cpu_us'):.2f}" if found is not ours else ""]
            )
    table(["how", "server", "how many", "p50", "p99", "CPU a poll", "CPU, times whydownd's"], rows)
