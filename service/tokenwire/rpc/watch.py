"""Looks after one stream: notices its silence, and a client that does not read."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tokenwire.transport.call import Call, Done


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """How long streams may stand still, in seconds.

    Args:
        heartbeat: silence after which a reader hears that its stream lives.
        stall: that a client may take for one message; it is then cut.
        resume: for which what was read waits at least for a reader that the server sent away.
    """

    heartbeat: float = 10.0
    stall: float = 30.0
    resume: float = 30.0


class StalledError(Exception):
    """The client has not read for too long. The message that was being written may reach it, or not."""


class Watch:
    """Watches over the task inside it, which writes to one call.

    One timer for the whole stream: a message costs two attributes and a look at the clock, and the timer looks at them
    when it fires. It cancels the task where it waits: in `change`, which then says that a heartbeat is due, or in a
    write, of which the block raises StalledError. Silence counts from when the last message began to be written.
    """

    def __init__(self, call: Call, limits: StreamLimits) -> None:
        self._call = call
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        # When the last write began, and how many the call will have made once it is over.
        self._began = self._time()
        self._count = call.messages
        self._waiting = False
        self._silent = False
        self._stalled = False
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def write(self, message: object) -> Awaitable[None]:
        """Writes to the call."""
        self._began = self._time()
        self._count = self._call.messages + 1
        return self._call.write(message)

    def begin_write(self, message: object, done: Done) -> None:
        """Begins to write to the call."""
        self._began = self._time()
        self._count = self._call.messages + 1
        self._call.begin_write(message, done)

    async def change(self, changed: Callable[[], Awaitable[object]]) -> bool:
        """Waits for a change; returns whether there was one, and not silence for so long that a heartbeat is due."""
        self._waiting = True
        try:
            await changed()
        except asyncio.CancelledError:
            # Others may have cancelled the task as well; then it is theirs.
            if not self._silent or self._uncancel():
                raise
            self._silent = False
            return False
        finally:
            self._waiting = False
        return True

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._arm(self._began + min(self._limits.heartbeat, self._limits.stall))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._stalled and not self._uncancel() and isinstance(error, asyncio.CancelledError):
            raise StalledError from None

    def _look(self) -> None:
        now, limits = self._time(), self._limits
        if self._call.messages < self._count:
            stalls = self._began + limits.stall
            if now < stalls:
                self._arm(stalls)
            else:
                self._stalled = True
                self._cancel()
            return
        beat = self._began + limits.heartbeat
        if now >= beat:
            beat = now + limits.heartbeat
            if self._waiting:
                self._silent = True
                self._cancel()
        # A write that begins right now may stall.
        self._arm(min(beat, now + limits.stall))

    def _arm(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._look)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _uncancel(self) -> int:
        return self._task.uncancel() if self._task is not None else 0
