"""Processes under measurement: started on a core of their own, asked for their CPU time and memory, always ended."""

import contextlib
import os
import subprocess
import time
from pathlib import Path


ALL_CORES = os.sched_getaffinity(0)


def cores():
    """The cores that this run may use, in order."""
    return sorted(ALL_CORES)


def start(command, core=None, **more):
    """Starts `command` on one core, or on all that this run may use, wherever this process itself has moved since."""
    cores = ALL_CORES if core is None else {core}
    return subprocess.Popen(
        [str(word) for word in command], preexec_fn=lambda: os.sched_setaffinity(0, cores), **more
    )


def pin_self(core):
    """Moves this process and what it starts from now on to `core`."""
    os.sched_setaffinity(0, {core})


def family(pid):
    """The process and its children. A thread may end while it is looked at; its time stays with the process."""
    found = [pid]
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            found += [int(child) for child in children.split()]
    return found


def cpu_seconds(process):
    """User and system time of a process and its children so far, by the kernel's clocks of processes.

    /proc/PID/stat counts in steps of ten milliseconds; these have nanoseconds. How a process's id and the clock make
    one number is the kernel's MAKE_PROCESS_CPUCLOCK.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in family(process.pid))


def memory_mb(process, field="VmRSS"):
    """A line of /proc/PID/status, in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {process.pid} has no {field}")


def busy_percent(seconds=0.5):
    """How busy the machine is while we do nothing: what others, here or on the same hardware, take away."""
    def read():
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]
    (all_before, idle_before) = read()
    time.sleep(seconds)
    (all_after, idle_after) = read()
    return 100 * (1 - (idle_after - idle_before) / max(1, all_after - all_before))


def wait_for_quiet(seconds):
    """Waits until others leave the machine alone; false if they did not within `seconds`."""
    end = time.monotonic() + seconds
    while busy_percent(0.2) > 20:
        if time.monotonic() > end:
            return False
    return True


def wait_for(what, ask, seconds=60):
    """Asks until the answer is true; gives it back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.02)
    raise RuntimeError(f"{what}: not within {seconds} s")


@contextlib.contextmanager
def ended_on_error(process):
    """A server that does not come up is not left behind."""
    try:
        yield
    except BaseException:
        stop(process)
        raise


def stop(process):
    """Ends a process in order, or by force."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
