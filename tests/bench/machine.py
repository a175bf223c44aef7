"""What a benchmark ran on."""

import os
import platform
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_LOOK_SECONDS = 1.0


def machine(*, busy: float) -> dict[str, str]:
    """Returns what the reader of the results should know.

    Args:
        busy: how many cores others have used.
    """
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "memory": _gibibytes(_field(Path("/proc/meminfo"), "MemTotal")),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores in use before": f"{busy:.2f}",
    }


def busy_cores(seconds: float = _LOOK_SECONDS) -> float:
    """Returns how many cores are in use, by whomever, while nothing is measured."""
    before, started = _used_seconds(), time.monotonic()
    time.sleep(seconds)
    return (_used_seconds() - before) / (time.monotonic() - started)


def _used_seconds() -> float:
    # User, nice, system, idle, waiting, interrupts, soft interrupts, stolen by other machines.
    user, nice, system, _, _, *others = (int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _gibibytes(text: str) -> str:
    kibibytes = text.removesuffix("kB").strip()
    return f"{int(kibibytes) / 1024**2:.1f} GiB" if kibibytes.isdigit() else "unknown"
