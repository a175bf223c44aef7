"""Who reads a run, here and at other processes, and what happens when nobody does."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from tokenwire.dispatch.run import Run, StopCause
from tokenwire.journal.journal import Journal

# A run that another process writes is followed for so many seconds after its last reader here has left.
LINGER_SECONDS = 5.0
# Readers at other processes are asked about again after this time, then after twice the time, and so on up to the last:
# soon, as the journal says that there are some while it cannot know; later, as their process may have died silently.
ASK_AGAIN_SECONDS = 1.0
ASK_AGAIN_MAX_SECONDS = 10.0


class Follower(Protocol):
    """A reader's view of a run."""

    @property
    def behind(self) -> bool:
        """Whether there is something that it has not taken."""
        ...


@dataclass(slots=True, eq=False)
class Reading:
    """One reader's stay.

    Attributes:
        detached: seconds for which its run then waits for a reader at least.
        view: what it reads by, if it is a stream.
    """

    detached: float = 0.0
    view: Follower | None = None

    def detach(self, seconds: float) -> None:
        """Says that it is the server that makes this reader leave: its run waits for it."""
        self.detached = max(self.detached, seconds)


class Presence:
    """Counts readers, and ends runs that have had none for too long.

    Args:
        journal: knows the readers at other processes.
        release: lets go of a run that another process writes and nobody reads here.

    Attributes:
        readings: those that are under way, of all runs.
    """

    def __init__(self, journal: Journal, release: Callable[[Run], None]) -> None:
        self._journal = journal
        self._release = release
        self._asking: set[asyncio.Task[None]] = set()
        self.readings: set[Reading] = set()

    def reading(self, run: Run) -> AbstractContextManager[Reading]:
        """Counts a reader; when the last one leaves, the run's grace begins."""
        return _Stay(self, run)

    def enters(self, run: Run, reading: Reading) -> None:
        """A reader has come."""
        run.readers += 1
        _stop_timer(run)
        if run.readers == 1:
            self._journal.attend(run.id, 1)
        self.readings.add(reading)

    def leaves(self, run: Run, reading: Reading) -> None:
        """A reader has gone."""
        self.readings.discard(reading)
        run.readers -= 1
        if reading.detached:
            # Others may still read, and leave before it is back.
            run.kept_until = max(run.kept_until, asyncio.get_running_loop().time() + reading.detached)
        # Of a run that was let go the journal may have other readers by now.
        if run.readers == 0 and run.handed_over is None:
            self._journal.attend(run.id, 0)
            self.alone(run)

    def alone(self, run: Run, at_least: float = 0.0) -> None:
        """Begins the grace of a run that nobody reads here; it has so many seconds at least."""
        if run.readers:
            return
        _stop_timer(run)
        loop = asyncio.get_running_loop()
        run.kept_until = max(run.kept_until, loop.time() + at_least)
        if not run.here:
            run.grace_timer = loop.call_later(LINGER_SECONDS, self._release, run)
        elif not run.log.closed and run.grace is not None:
            grace = max(run.grace, run.kept_until - loop.time())
            if grace > 0:
                run.grace_timer = loop.call_later(grace, self._orphan, run)
            else:
                self._orphan(run)

    async def close(self) -> None:
        """Waits for what is under way."""
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

    def _orphan(self, run: Run, again: float = ASK_AGAIN_SECONDS) -> None:
        run.grace_timer = None
        if not self._journal.shared:
            run.stop(StopCause.ORPHANED)
            return
        task = asyncio.get_running_loop().create_task(self._ask(run, again), name=f"readers of run {run.id}")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, run: Run, again: float) -> None:
        attended = await self._journal.attended(run.id)
        if run.readers or run.log.closed:
            return
        if not attended:
            run.stop(StopCause.ORPHANED)
        elif run.grace_timer is None:
            # The last of them says so when it leaves; this is for those that cannot.
            later = min(2 * again, ASK_AGAIN_MAX_SECONDS)
            run.grace_timer = asyncio.get_running_loop().call_later(again, self._orphan, run, later)


class _Stay(Reading):
    """A reading as a context. No generator: it is held as long as a stream lasts."""

    __slots__ = ("_presence", "_run")

    def __init__(self, presence: Presence, run: Run) -> None:
        super().__init__()
        self._presence = presence
        self._run = run

    def __enter__(self) -> Reading:
        self._presence.enters(self._run, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._presence.leaves(self._run, self)


def _stop_timer(run: Run) -> None:
    if run.grace_timer is not None:
        run.grace_timer.cancel()
        run.grace_timer = None
