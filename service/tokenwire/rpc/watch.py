"""Looks after one stream: notices its silence, and a client that does not read."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tokenwire.dispatch.deadlines import Deadline, Deadlines
from tokenwire.transport.call import Call


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

    A message costs two attributes and a look at the clock; they are looked at when a deadline comes. Then the task is
    cancelled where it waits: in `change`, which then says that a heartbeat is due, or in a write, of which the block
    raises StalledError. Silence counts from when the last message began to be written.

    Args:
        call: what is written to.
        limits: how long it may stand still.
        deadlines: those of all watches, which call `look`; None: its own.

    Attributes:
        began: when the last write began, on the event loop's clock; set, as `count`, by whoever writes to the call
            itself.
        count: how many messages the call will have sent once that is over.
    """

    __slots__ = (
        "_call",
        "_deadline",
        "_deadlines",
        "_limits",
        "_loop",
        "_silent",
        "_stalled",
        "_task",
        "_waiting",
        "began",
        "count",
    )

    def __init__(self, call: Call, limits: StreamLimits, deadlines: "Deadlines[Watch] | None" = None) -> None:
        self._call = call
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        self.count = call.messages
        self._waiting = False
        self._silent = False
        self._stalled = False
        self._task: asyncio.Task[object] | None = None
        self._deadlines = Deadlines(Watch.look) if deadlines is None else deadlines
        self._deadline: Deadline[Watch] | None = None

    def write(self, message: object) -> Awaitable[None]:
        """Writes to the call."""
        self.began = self._loop.time()
        self.count = self._call.messages + 1
        return self._call.write(message)

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
        self._arm(self.began + min(self._limits.heartbeat, self._limits.stall))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._stalled and not self._uncancel() and isinstance(error, asyncio.CancelledError):
            raise StalledError from None

    def look(self) -> None:
        """Cancels the task where it waits, if it has waited for so long; looks again later."""
        now, limits = self._loop.time(), self._limits
        if self._call.messages < self.count:
            stalls = self.began + limits.stall
            if now < stalls:
                self._arm(stalls)
            else:
                self._stalled = True
                self._cancel()
            return
        beat = self.began + limits.heartbeat
        if now >= beat:
            beat = now + limits.heartbeat
            if self._waiting:
                self._silent = True
                self._cancel()
        # A write that begins right now may stall.
        self._arm(min(beat, now + limits.stall))

    def _arm(self, when: float) -> None:
        self._deadline = self._deadlines.set(when, self)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _uncancel(self) -> int:
        return self._task.uncancel() if self._task is not None else 0
