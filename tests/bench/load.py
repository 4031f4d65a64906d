"""One measurement: wrk against a server, and what the server's processes spent meanwhile.

With TLS wrk shows a certificate by a small library that is loaded before it: the client is the same for all servers, and
the same as without TLS.
"""

import json
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

import preload
import process

SCRIPT = Path(__file__).resolve().parent / "wrk.lua"


@dataclass
class Load:
    """What wrk found in one go."""

    rate: float  # requests a second
    cpu_us: float  # user and system time of the server, microseconds a request
    p50_us: float
    p99_us: float


def run(server, address, least_bytes, connections, seconds, core, shim, packing="plain", threads=1):
    """Drives `server` for `seconds`. Trouble of any kind ends the benchmark: a wrong number is worse than none."""
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", SCRIPT, address.url]
    command += ["--", address.method, packing]
    papers, env = address.papers, None
    if papers:
        env = preload.environment(shim, WRK_CERTIFICATE=str(papers.certificate), WRK_KEY=str(papers.key))
    before = process.cpu_seconds(server.process)
    driver = process.start(command, core, stdout=subprocess.PIPE, text=True, env=env)
    output, _ = driver.communicate()
    spent = process.cpu_seconds(server.process) - before
    if driver.returncode != 0:
        raise RuntimeError(f"wrk ended with {driver.returncode}:\n{output}")
    found = json.loads(output.splitlines()[-1])
    if found["failed"] or not found["requests"] or found["bytes"] < found["requests"] * least_bytes:
        raise RuntimeError(f"{server.name}: {found}")
    return Load(
        rate=found["requests"] / found["seconds"],
        cpu_us=spent * 1e6 / found["requests"],
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
    )


def median(loads, field):
    return statistics.median(getattr(load, field) for load in loads)


def ratio(ours, theirs, field):
    """The median of the ratios of each round: a machine that gets slower for a while does so for both."""
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(ours, theirs, strict=True))
