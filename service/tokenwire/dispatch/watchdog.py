"""Notices silence, at the cost of one comparison a read."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tokenwire.dispatch.deadlines import Deadline, Deadlines
from tokenwire.domain.errors import TokenwireError


class Watchdog:
    """Cancels the task inside it when it was not fed in time, and raises an error instead of the cancellation.

    Feeding moves a point in time, which is looked at when the deadline comes that was set for it. What does not end
    when it is cancelled is cancelled again, after `insist` seconds each time.

    Args:
        seconds: of silence that are allowed.
        error: what it then fails with.
        insist: see above.
        deadlines: those of all watchdogs, which call `look`; None: its own.

    Attributes:
        heard: when something came last, on the event loop's clock: setting it is as good as `feed`, and no call.
    """

    __slots__ = ("_cancels", "_deadline", "_deadlines", "_error", "_insist", "_loop", "_seconds", "_task", "heard")

    def __init__(
        self,
        seconds: float,
        error: Callable[[], TokenwireError],
        insist: float = 5.0,
        deadlines: "Deadlines[Watchdog] | None" = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._error = error
        self._insist = insist
        self._cancels = 0
        self._task: asyncio.Task[object] | None = None
        self.heard = 0.0
        self._deadlines = Deadlines(Watchdog.look) if deadlines is None else deadlines
        self._deadline: Deadline[Watchdog] | None = None

    def watch_for(self, seconds: float, error: Callable[[], TokenwireError]) -> None:
        """From now on allows so many seconds of silence, and fails with this error."""
        self._seconds, self._error = seconds, error
        self.feed()
        self._arm()

    def feed(self) -> None:
        """Says that something came."""
        self.heard = self._loop.time()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self.feed()
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._cancels or self._task is None:
            return
        for _ in range(self._cancels):
            left = self._task.uncancel()
        # Others may have cancelled the task as well; then it is theirs.
        if left == 0 and isinstance(error, asyncio.CancelledError):
            raise self._error() from error

    def look(self) -> None:
        """Cancels the task, if there was silence for so long; looks again later."""
        now = self._loop.time()
        if now < self.heard + self._seconds and not self._cancels:
            self._arm()
        elif self._task is not None:
            self._cancels += 1
            self._task.cancel()
            self._deadline = self._deadlines.set(now + self._insist, self)

    def _arm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._deadlines.set(self.heard + self._seconds, self)
