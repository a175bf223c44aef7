"""A process and everything it has started: CPU time, memory, sockets."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    pid: int
    started: int
    parent: int
    session: int
    # Ended, and its parent has not asked how: it has used time, and is nothing else any more.
    zombie: bool
    own_seconds: float
    # Of children that have ended and were waited for, and of theirs.
    children_seconds: float

    @property
    def key(self) -> tuple[int, int]:
        # A process id alone may be used again.
        return self.pid, self.started


class ProcessTree:
    """A process, its children and theirs, those that have ended included.

    Belonging to it, once seen, lasts: a child whose parent has ended still counts. What ends unseen between two looks
    counts as soon as its parent has waited for it; only a child whose parent ignores SIGCHLD escapes.

    Args:
        root: the process's id; it leads a session of its own.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[tuple[int, int], _Process] = {}
        self._lost_seconds = 0.0

    def pids(self) -> list[int]:
        """Returns the ids of those that still run, lowest first."""
        return sorted(one.pid for one in self._look() if not one.zombie)

    def cpu_seconds(self) -> float:
        """Returns the user and system time of all so far, in seconds. It never falls."""
        seen = self._look()
        return self._lost_seconds + sum(one.own_seconds + one.children_seconds for one in seen)

    def rss_bytes(self) -> int:
        """Returns the resident memory of all, in bytes; what several share counts for each."""
        return sum(_rss_bytes(pid) for pid in self.pids())

    def holds(self, inodes: set[int]) -> bool:
        """Tells whether one of these sockets belongs to one of the processes."""
        names = {f"socket:[{inode}]" for inode in inodes}
        return any(name in names for pid in self.pids() for name in _open_files(pid))

    def _look(self) -> list[_Process]:
        everything = {one.pid: one for one in _processes()}
        seen = [one for one in everything.values() if self._belongs(one, everything)]
        alive = {one.key for one in seen}
        pids = {one.pid for one in seen}
        for one in [one for key, one in self._known.items() if key not in alive]:
            del self._known[one.key]
            # A parent that lives on has its time; it is lost only with an orphan.
            if not self._has_heir(one, pids):
                self._lost_seconds += one.own_seconds + one.children_seconds
        self._known.update({one.key: one for one in seen})
        return seen

    def _belongs(self, one: _Process, everything: dict[int, _Process]) -> bool:
        if one.session == self._root or one.key in self._known:
            return True
        for _ in range(len(everything)):
            if one.pid == self._root or one.key in self._known:
                return True
            parent = everything.get(one.parent)
            if parent is None:
                return False
            one = parent
        return False

    def _has_heir(self, one: _Process, alive: set[int]) -> bool:
        parents = {known.pid: known.parent for known in self._known.values()}
        pid = one.parent
        while pid not in alive:
            if pid not in parents:
                return False
            pid = parents.pop(pid)
        return True


def _processes() -> Iterator[_Process]:
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                yield _process(int(folder.name))


def _process(pid: int) -> _Process:
    # The name, in parentheses, may hold anything.
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return _Process(
        pid=pid,
        parent=int(words[1]),
        session=int(words[3]),
        zombie=words[0] == "Z",
        own_seconds=_own_seconds(pid, (int(words[11]) + int(words[12])) / _TICKS_PER_SECOND),
        children_seconds=(int(words[13]) + int(words[14])) / _TICKS_PER_SECOND,
        started=int(words[19]),
    )


def _own_seconds(pid: int, ticks: float) -> float:
    """Returns a process's CPU time by its own clock, which counts nanoseconds; a tick is ten milliseconds."""
    try:
        # clock_getcpuclockid(3) for another process.
        return max(ticks, time.clock_gettime((~pid << 3) | 2))
    except OSError:
        return ticks


def _rss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError):
        # Without a right to the above; it may lag a little.
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(path.readlink())
