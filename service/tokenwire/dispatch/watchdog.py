"""Notices silence, at the cost of one comparison a read."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tokenwire.domain.errors import TokenwireError


class Watchdog:
    """Cancels the task inside it when it was not fed in time, and raises an error instead of the cancellation.

    One timer for the whole attempt: feeding moves a deadline, and the timer looks at it when it fires. What does not
    end when it is cancelled is cancelled again, after `insist` seconds each time.
    """

    def __init__(self, seconds: float, error: Callable[[], TokenwireError], insist: float = 5.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._seconds = seconds
        self._error = error
        self._insist = insist
        self._cancels = 0
        self._task: asyncio.Task[object] | None = None
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def watch_for(self, seconds: float, error: Callable[[], TokenwireError]) -> None:
        """From now on allows so many seconds of silence, and fails with this error."""
        self._seconds, self._error = seconds, error
        self.feed()
        self._arm()

    def feed(self) -> None:
        """Says that something came."""
        self._heard = self._time()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self.feed()
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._cancels or self._task is None:
            return
        for _ in range(self._cancels):
            left = self._task.uncancel()
        # Others may have cancelled the task as well; then it is theirs.
        if left == 0 and isinstance(error, asyncio.CancelledError):
            raise self._error() from error

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._heard + self._seconds, self._look)

    def _look(self) -> None:
        if self._loop.time() < self._heard + self._seconds and not self._cancels:
            self._timer = self._loop.call_at(self._heard + self._seconds, self._look)
        elif self._task is not None:
            self._cancels += 1
            self._task.cancel()
            self._timer = self._loop.call_later(self._insist, self._look)
