"""One call of a stream, read a little ahead."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from typing import Generic, Protocol, TypeVar

from grpc.aio import AioRpcError

from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure, silence
from tokenwire_client.wire import failure_of

EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)

# So that the reading never waits for its consumer's next turn; what a slow consumer leaves, stays in the window.
READ_AHEAD = 64


class Streaming(AsyncIterable[EventT_co], Protocol[EventT_co]):
    """A call that brings a stream."""

    def cancel(self) -> bool:
        """Drops it."""
        ...


class Line(Generic[EventT]):
    """Reads a call in a task of its own: cancelling who waits for an event must not drop the call.

    Args:
        call: the call.
        silent_after: seconds without an event after which the call is dropped; None: never.

    Attributes:
        failure: how the call ended, once `next` has given None; None: with the status OK.
    """

    def __init__(self, call: Streaming[EventT], silent_after: float | None) -> None:
        self.failure: Failure | None = None
        self._call = call
        self._silent_after = silent_after
        self._loop = asyncio.get_running_loop()
        self._events: deque[EventT] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._silent = False
        self._over = False
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        if silent_after is not None:
            self._timer = self._loop.call_later(silent_after, self._watch, silent_after)
        self._task = self._loop.create_task(self._read(), name="tokenwire stream")

    async def next(self) -> EventT | None:
        """Returns the next event, or None after the last one. Cancelled, it loses none."""
        while not self._events:
            if self._over:
                return None
            self._waiter = self._loop.create_future()
            await self._waiter
        event = self._events.popleft()
        if self._room is not None and len(self._events) <= READ_AHEAD // 2:
            _wake(self._room)
        return event

    async def close(self) -> None:
        """Drops the call, unless it is over, and waits until nothing is left of it."""
        if not self._task.done():
            self._call.cancel()
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _read(self) -> None:
        try:
            async for event in self._call:
                self._heard_at = self._loop.time()
                self._events.append(event)
                if self._waiter is not None:
                    _wake(self._waiter)
                if len(self._events) >= READ_AHEAD:
                    self._room = self._loop.create_future()
                    await self._room
                    self._room = None
                    self._heard_at = self._loop.time()
        except AioRpcError as error:
            self.failure = failure_of(error)
        except asyncio.CancelledError:
            self.failure = Failure(code=Code.FAILED_PRECONDITION, message="the client was closed")
            if self._task.cancelling():
                raise
            # The call was dropped, and not this task: by us, or with its channel.
            if self._silent:
                self.failure = silence(self._silent_after or 0.0)
        finally:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            if self._waiter is not None:
                _wake(self._waiter)

    def _watch(self, seconds: float) -> None:
        silent_for = self._loop.time() - self._heard_at if self._room is None else 0.0
        if silent_for >= seconds:
            self._silent = True
            self._call.cancel()
        else:
            self._timer = self._loop.call_later(seconds - silent_for, self._watch, seconds)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
