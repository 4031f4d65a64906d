"""How long it takes from a `shutdown` until the ending is seen by a poll, and until it is on disk.

An ending that is seen and not yet on disk says `exitDurable` false; on disk, the member is gone.
"""

import multiprocessing
import os
import statistics
import threading
import time
from dataclasses import dataclass

from client import Connection, call, post
from report import both, number, say, table
from servers import ALL_STATS, Nginx, Whydownd, test_host, vm_id
from stage import free_port

#: Seconds of polls before a storm.
CALM_S = 1

DOWN, NOT_DURABLE = b"<name>exitCode</name>", b"<name>exitDurable</name>"


def disk(folder, samples=200):
    """Milliseconds of one fdatasync after an appended page: the least that anything durable costs on this disk."""
    spent = []
    with open(folder / "probe", "wb", buffering=0) as file:
        for _ in range(samples):
            file.write(os.urandom(4096))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append((time.perf_counter() - start) * 1e3)
    return spent


def one_by_one(daemon, numbers):
    """Shuts VMs down one after another. Milliseconds until Down is seen, and from then until it is durable."""
    acting, polling = Connection(daemon.port), Connection(daemon.port)
    seen, durable = [], []
    for number in numbers:
        vm = vm_id(number)
        poll = call("getVmStats", vm)
        start = time.perf_counter()
        acting.send(call("shutdown", vm, "0", "0"))
        down = None
        while True:
            body = polling.ask(poll)
            now = time.perf_counter()
            if DOWN in body:
                down = down or now
                if NOT_DURABLE not in body:
                    break
            if now - start > 60:
                raise RuntimeError(f"not Down after a minute: {body!r}")
        seen.append((down - start) * 1e3)
        durable.append((now - down) * 1e3)
        check(acting.receive())
    acting.close()
    polling.close()
    return seen, durable


def check(reply):
    if b"<name>code</name><value><int>0</int>" not in reply:
        raise RuntimeError(f"shutdown was answered {reply!r}")


def _shut_down(port, numbers, go):
    connection = Connection(port)
    requests = [call("shutdown", vm_id(number), "0", "0") for number in numbers]
    go.wait()
    for request in requests:
        check(connection.ask(request))
    connection.close()


def _storm(port, count, threads, go, failed, ended):
    """Runs in a process of its own, and only when the one that polls does not want the core that both share as clients:
    on a machine of its own a manager would not be held up by others."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    def work(numbers):
        try:
            _shut_down(port, numbers, go)
        except Exception as error:  # noqa: BLE001 - told to the process that measures
            failed.put(repr(error))
    workers = [threading.Thread(target=work, args=(range(part, count, threads),)) for part in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ended.value = time.perf_counter()  # one clock for all processes of a host


@dataclass
class Storm:
    """What one storm took, in milliseconds."""

    calm: list  # each poll of a second before it
    busy: list  # each poll while it went on
    calm_file: list  # the same by nginx, with as many bytes from a file
    busy_file: list
    answered: float  # from its start until every shutdown was answered
    down: float  # until a poll said Down of every VM
    durable: float  # until a poll said that every ending is on disk


def storm(daemon, nginx, count, threads, pause):
    """Shuts `count` VMs down from `threads` at once, and polls all of them meanwhile; and nginx in turn, for what the
    machine itself makes of so many bytes."""
    context = multiprocessing.get_context("fork")
    go, failed, ended = context.Event(), context.SimpleQueue(), context.Value("d", 0.0)
    driver = context.Process(target=_storm, args=(daemon.port, count, threads, go, failed, ended))
    driver.start()
    connection, file = Connection(daemon.port), Connection(nginx.ports[0])
    plain = connection.ask(ALL_STATS)
    nginx.serve("storm", plain, b"")
    get = nginx.plain("storm").request()

    def timed(server, request, spent):
        time.sleep(pause)
        asked = time.perf_counter()
        server.send_raw(request)
        body = server.receive()
        now = time.perf_counter()
        spent.append((now - asked) * 1e3)
        return body, now

    def poll(spent, spent_file):
        timed(file, get, spent_file)
        return timed(connection, post(ALL_STATS), spent)

    calm, busy, calm_file, busy_file, down = [], [], [], [], None
    start = time.perf_counter()
    while time.perf_counter() - start < CALM_S:
        poll(calm, calm_file)
    start = time.perf_counter()
    go.set()
    while True:
        body, now = poll(busy, busy_file)
        if not failed.empty():
            raise RuntimeError(failed.get())
        if down is None and body.count(DOWN) == count:
            down = now
        if down is not None and NOT_DURABLE not in body:
            break
        if now - start > 120:
            raise RuntimeError(f"{body.count(DOWN)} of {count} VMs are Down after two minutes")
    driver.join(60)
    connection.close()
    file.close()
    if not failed.empty():
        raise RuntimeError(failed.get())
    return Storm(calm, busy, calm_file, busy_file, *((at - start) * 1e3 for at in (ended.value, down, now)))


def _daemon(stage, name, count, core):
    folder = stage.folder / name
    return stage.keep(Whydownd(stage.given.daemon, folder, test_host(folder, count), core)).expect(count)


def tell_one_by_one(stage):
    """Measures VMs that end one after another, and prints what was found."""
    daemon = _daemon(stage, "one", 500, stage.core)
    stage.quiet()
    seen, durable = one_by_one(daemon, range(stage.given.samples))
    stage.drop(daemon)
    rows = [
        ["shutdown sent, until a poll says Down", *both(seen)],
        ["from then until the ending is on disk", *both(durable)],
        ["the disk alone: one `fdatasync` of a page", *both(disk(stage.folder))],
    ]
    say(f"One of 500 VMs is shut down, {stage.given.samples} times: milliseconds.\n")
    table(["what", "median", "p99"], rows)


def tell_storms(stage, pause=0.005):
    """Measures storms, with the daemon on one core and on all, and prints what was found."""
    count = stage.given.storm
    storms = {"one core": [], "all cores": []}
    for turn in range(stage.given.rounds):
        for where, core in (("one core", stage.core), ("all cores", None)):
            stage.quiet()
            name = f"storm-{turn}-{where.split()[0]}"
            daemon = _daemon(stage, name, count, core)
            ports = free_port(), free_port()
            workers = 1 if core is not None else len(stage.cpus)
            nginx = stage.keep(Nginx(stage.folder / f"{name}-nginx", ports, workers, core, stage.papers))
            storms[where].append(storm(daemon, nginx, count, 16, pause))
            stage.drop(nginx)
            stage.drop(daemon)
    say(f"{count} VMs are shut down at once from 16 connections, with a poll every {pause * 2000:.0f} ms beside it,")
    say("and between them as many bytes from a file by nginx on the same cores;")
    say(f"{stage.given.rounds} times: milliseconds.\n")
    rows = []
    for where, all_ in storms.items():
        for what, field in (("the second before it", "calm"), ("it", "busy")):
            for name, measured in (("`getAllVmStats`", field), ("nginx", f"{field}_file")):
                polls = [spent for one in all_ for spent in getattr(one, measured)]
                rows.append([f"{name} in {what}", where, str(len(polls)), *both(polls), number(max(polls))])
    table(["what", "servers on", "polls", "median", "p99", "most"], rows)
    rows = []
    for where, all_ in storms.items():
        for what, field in (("shutdown is answered", "answered"), ("VM is shown Down", "down"), ("ending is on disk", "durable")):
            spent = [getattr(one, field) for one in all_]
            rows.append([f"every {what}", where, number(statistics.median(spent)), number(max(spent))])
    table(["from the start until", "daemon on", "median", "most"], rows)
