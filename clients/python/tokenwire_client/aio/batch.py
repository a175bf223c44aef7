"""A batch, read by a coroutine."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from grpc.aio import AioRpcError

from tokenwire.v1.batch_service_pb2 import BatchEvent
from tokenwire_client.aio.leaving import to_its_end
from tokenwire_client.aio.line import Line
from tokenwire_client.aio.stream import OnReconnect
from tokenwire_client.core.batching import Batching, Item, Outcome
from tokenwire_client.core.policy import Policy

OnEvent = Callable[[BatchEvent], None]


class AsyncBatch:
    """The outcomes of many requests, in the order of their ends, each once, whatever becomes of the line.

    Used with `async with`. Leaving the block before the end stops on the server what is in flight. Items are taken as
    the server has room for them.

    Raises, while it is iterated: RefusedError, BrokenError, IntegrityError, and whatever the items raise.
    """

    def __init__(
        self,
        batching: Batching,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        call: Callable[[], Any],
        policy: Policy,
        on_event: OnEvent | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> None:
        self._batching = batching
        self._source = _Source(items)
        self._call = call
        self._policy = policy
        self._on_event = on_event
        self._on_reconnect = on_reconnect
        self._line: Line[BatchEvent] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._answered = asyncio.Event()
        self._outcomes: deque[Outcome] = deque()
        self._entered = False
        self._over = False

    async def __aenter__(self) -> Self:
        """Returns itself; the first call is made by the first step."""
        if self._entered:
            raise RuntimeError("a batch is read once")
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops what is in flight, and drops the call."""
        await to_its_end(self._leave())

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> Outcome:
        """Returns the next item that ended. Cancelled, it loses none."""
        if not self._entered:
            raise RuntimeError("a batch is read inside `async with`")
        while not self._outcomes:
            if self._over:
                raise StopAsyncIteration
            try:
                await self._step()
            except BaseException as error:
                self._over = not isinstance(error, asyncio.CancelledError)
                raise
        return self._outcomes.popleft()

    async def _step(self) -> None:
        if self._line is None:
            call = self._call()
            self._answered = asyncio.Event()
            self._line = Line(call, None)
            self._sending = asyncio.get_running_loop().create_task(self._send(call), name="tokenwire batch items")
            # If the items fail, no more come, and the end neither.
            self._sending.add_done_callback(lambda task: call.cancel() if _raised(task) else None)
            return
        event = await self._line.next()
        if event is None:
            await self._ended(self._line)
            return
        self._answered.set()
        for one in self._batching.add(event):
            if self._on_event is not None:
                self._on_event(one)
            if one.HasField("item_done"):
                self._outcomes.append(Outcome(one.item_done))

    async def _send(self, call: Any) -> None:
        batching = self._batching
        await call.write(batching.open())
        # A refusal of the batch would be masked by that of a write.
        await self._answered.wait()
        while True:
            request = batching.again()
            if request is not None:
                await call.write(request)
            elif not batching.takes:
                break
            else:
                item = await self._source.next()
                if item is None:
                    batching.exhausted = True
                else:
                    batching.take(item)
        await call.done_writing()

    async def _ended(self, line: Line[BatchEvent]) -> None:
        """Sees to what follows the end of a call."""
        error = await self._drop()
        if error is not None:
            raise error
        again = self._batching.finished() if line.failure is None else self._batching.failed(line.failure)
        if again is None:
            self._over = True
            return
        if again.attempt:
            if self._on_reconnect is not None:
                self._on_reconnect(again.attempt, again.failure, again.seconds)
            await asyncio.sleep(again.seconds)

    async def _drop(self) -> BaseException | None:
        """Ends the call; returns what the items raised."""
        if self._line is not None:
            await self._line.close()
        sending = self._sending
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])
        self._line = self._sending = None
        return sending.exception() if sending is not None and _raised(sending) else None

    async def _leave(self) -> None:
        self._over = True
        await self._drop()
        await self._source.close()
        request = self._batching.leave
        if request is None:
            return
        with suppress(AioRpcError, TimeoutError, asyncio.InvalidStateError):
            async with asyncio.timeout(self._policy.leave):
                call = self._call()
                try:
                    await call.write(request)
                    await call.done_writing()
                    # It has heard it when it answers.
                    await call.read()
                finally:
                    call.cancel()


class _Source:
    """Takes items one by one; whoever is cancelled while waiting leaves the item to the next."""

    def __init__(self, items: Iterable[Item] | AsyncIterable[Item]) -> None:
        self._items: AsyncIterator[Item] | Iterator[Item] = (
            aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        )
        self._coming: asyncio.Task[Item | None] | None = None

    async def next(self) -> Item | None:
        """Returns the next item, or None after the last one."""
        if isinstance(self._items, Iterator):
            return next(self._items, None)
        if self._coming is None:
            self._coming = asyncio.ensure_future(_next(self._items))
        await asyncio.wait([self._coming])
        coming, self._coming = self._coming, None
        return coming.result()

    async def close(self) -> None:
        """Waits for no more items."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])


async def _next(items: AsyncIterator[Item]) -> Item | None:
    return await anext(items, None)


def _raised(task: "asyncio.Task[None]") -> bool:
    """Whether the items failed; a write that fails does so with its call, which tells why."""
    error = None if task.cancelled() else task.exception()
    return error is not None and not isinstance(error, AioRpcError | asyncio.InvalidStateError)
