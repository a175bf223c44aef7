"""A run, read by a coroutine."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from grpc.aio import AioRpcError

from tokenwire.v1.event_pb2 import Event, Progress
from tokenwire.v1.run_pb2 import Run
from tokenwire.v1.run_service_pb2 import CancelRunRequest
from tokenwire_client.aio.leaving import to_its_end
from tokenwire_client.aio.line import Line, Streaming
from tokenwire_client.core.answer import Result
from tokenwire_client.core.failure import Failure, silence
from tokenwire_client.core.following import Again, Following, Request
from tokenwire_client.core.policy import Policy
from tokenwire_client.core.reading import Reading

# After `end` the status is there at once, or does not come; all has been said.
LAST_WORD_SECONDS = 1.0

Sleep = Callable[[float], Awaitable[None]]
OnProgress = Callable[[Progress], None]
# The attempt's number, how the line ended, and the seconds until the attempt.
OnReconnect = Callable[[int, Failure, float], None]


class AsyncStream(Reading):
    """The events of one run, in order, each once, whatever becomes of the line.

    Used with `async with`; the call is made when the block is entered. Leaving the block before the run's end cancels
    the run on the server, unless it was begun elsewhere or is `detached`. Iterating gives the events of the contract,
    without heartbeats; `pieces` gives the text alone.

    Raises, while it is iterated: RefusedError, RunFailedError, BrokenError, IntegrityError, OverdueError.
    """

    def __init__(
        self,
        following: Following,
        *,
        call: Callable[[Request, float | None], Streaming[Event]],
        cancel: Callable[[CancelRunRequest, float], Awaitable[Run]],
        policy: Policy,
        sleep: Sleep = asyncio.sleep,
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> None:
        super().__init__(following)
        self._call = call
        self._cancel = cancel
        self._policy = policy
        self._sleep = sleep
        self._on_progress = on_progress
        self._on_reconnect = on_reconnect
        self._line: Line[Event] | None = None
        self._entered = False
        self._told = False
        self._over = False

    async def __aenter__(self) -> Self:
        """Makes the call."""
        if self._entered:
            raise RuntimeError("a stream is read once; attach to its run to read it again")
        self._entered = True
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancels the run if it has not ended, and drops the call."""
        await to_its_end(self._leave())

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> Event:
        """Returns the next event. Cancelled, it loses none."""
        if not self._entered:
            raise RuntimeError("a stream is read inside `async with`")
        while not self._over:
            if self._line is None:
                self._begin()
                continue
            event = await self._next(self._line)
            try:
                if event is None:
                    await self._ended(self._line)
                    continue
                new = self._following.add(event)
            except BaseException as error:
                self._over = not isinstance(error, asyncio.CancelledError)
                raise
            if new is not None:
                if self._on_progress is not None and new.HasField("progress"):
                    self._on_progress(new.progress)
                return new
        raise StopAsyncIteration

    def pieces(self, choice: int = 0) -> "AsyncPieces":
        """Iterates over the text of one choice, as it comes."""
        return AsyncPieces(self, choice)

    async def result(self) -> Result:
        """Reads to the end and returns the whole answer; a reading that began in the middle has what came since."""
        async for _ in self:
            pass
        return self._following.result()

    async def cancel(self) -> Run:
        """Ends the run; the stream goes on to its end. Raises AioRpcError if the server cannot be told."""
        # Leaving need not tell it once more.
        self._told = True
        return await self._cancel(self._following.cancelling, self._policy.leave)

    def _begin(self) -> None:
        self._line = Line(self._call(self._following.request, self._following.time_left), self._policy.silence)

    async def _next(self, line: Line[Event]) -> Event | None:
        if not self._following.ended:
            return await line.next()
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                return await line.next()
        except TimeoutError:
            line.failure = silence(LAST_WORD_SECONDS)
            return None

    async def _ended(self, line: Line[Event]) -> None:
        """Sees to what follows the end of a call."""
        failure = line.failure
        again = self._following.finished() if failure is None else self._following.failed(failure)
        if again is None:
            self._over = True
            return
        # From here on the next turn begins another call.
        self._line = None
        await line.close()
        await self._wait(again)

    async def _wait(self, again: Again) -> None:
        if self._on_reconnect is not None:
            self._on_reconnect(again.attempt, again.failure, again.seconds)
        await self._sleep(again.seconds)

    async def _leave(self) -> None:
        try:
            request = self._following.cancel
            if request is not None and not self._told:
                with suppress(AioRpcError):
                    await self._cancel(request, self._policy.leave)
        finally:
            self._over = True
            if self._line is not None:
                await self._line.close()


class AsyncPieces:
    """The text of one choice, piece by piece."""

    def __init__(self, stream: AsyncStream, choice: int) -> None:
        self._stream = stream
        self._choice = choice

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> str:
        """Returns the next piece."""
        while True:
            event = await self._stream.__anext__()
            if event.HasField("delta") and event.delta.choice == self._choice:
                return event.delta.text
