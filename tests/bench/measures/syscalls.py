"""System calls, counted by strace from outside."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.burst import burst
from bench.child import Child
from bench.figures import per_token
from bench.gateway import Gateway
from bench.measures.paced import MORE_SECONDS, PATIENCE
from bench.scenarios import Scenario
from bench.site import Site
from bench.void import VoidError

_ATTACH_SECONDS = 10
_DETACH_SECONDS = 10
_CALLS_COLUMN = 3


def absent() -> str:
    """Returns why system calls cannot be counted here; empty if they can."""
    return "" if shutil.which("strace") else "strace is not installed"


def syscalls(site: Site, gateway: Gateway, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Counts a gateway's system calls while streams run at the scenario's rate, less those of the calls alone.

    The rate is low, because each system call takes several times as long meanwhile. Raises VoidError if it does not
    count.
    """
    tokens = max(2, round(scenario.rate * seconds))
    patience = seconds * PATIENCE + MORE_SECONDS
    counts = []
    for length in (1, tokens):
        output = gateway.folder / f"strace-{length}"
        with _counting(gateway, output):
            burst(site, gateway, streams=scenario.streams, tokens=length, seconds_max=patience)
        counts.append(total(output.read_text()))
    return {"syscalls_per_token": per_token(counts[1], counts[0], streams=scenario.streams, tokens=tokens)}


def total(summary: str) -> int:
    """Returns the number of calls in a summary of strace -c. Raises VoidError if it holds none."""
    lines = summary.splitlines()
    rule = next((line for line in reversed(lines) if line.startswith("---")), "")
    if not rule or not lines[-1].endswith(" total"):
        raise VoidError("strace has counted nothing")
    # Some versions leave columns of the last line empty, so it is the place that tells which number is which.
    column = list(re.finditer("-+", rule))[_CALLS_COLUMN]
    return int(lines[-1][column.start() : column.end()])


@contextmanager
def _counting(gateway: Gateway, output: Path) -> Iterator[None]:
    pids = gateway.pids()
    command = ["strace", "-c", "-f", "-o", str(output), *(f"--attach={pid}" for pid in pids)]
    with Child("strace", command, folder=gateway.folder) as strace:
        deadline = time.monotonic() + _ATTACH_SECONDS
        while not all(_is_traced(pid) for pid in pids):
            if strace.ended() or time.monotonic() > deadline:
                raise VoidError("strace cannot attach to the gateway")
            time.sleep(0.02)
        yield
        strace.signal(signal.SIGINT)
        if not strace.wait(_DETACH_SECONDS):
            raise VoidError("strace does not end")


def _is_traced(pid: int) -> bool:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)
    except OSError:
        return False
