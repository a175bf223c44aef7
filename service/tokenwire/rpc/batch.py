"""BatchService."""

import asyncio
from contextlib import suppress
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tokenwire.dispatch.batch import Batch, BatchReader
from tokenwire.dispatch.batches import Batches, BatchOptions
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.journal.batch import BatchEnd
from tokenwire.rpc.batch_events import to_progress
from tokenwire.rpc.batch_items import Items, key_of
from tokenwire.rpc.watch import StalledError, StreamLimits, Watch
from tokenwire.transport.call import Call, Requests
from tokenwire.v1 import batch_service_pb2

PROGRESS_SECONDS = 0.5


class BatchServicer:
    """Answers many requests over one stream."""

    def __init__(self, batches: Batches, items: Items, limits: StreamLimits | None = None) -> None:
        self._batches = batches
        self._items = items
        self._limits = limits or StreamLimits()

    async def BatchGenerate(self, requests: Requests, call: Call) -> None:
        """Reads items, and writes the events of their batch."""
        opening = await _opening(requests)
        batch = self._batches.open(call.context.tenant, opening)
        with self._batches.reading(batch) as reader:
            receiving = asyncio.create_task(self._receive(batch, requests, call), name=f"items of batch {batch.id}")
            # Whoever waits for events hears that no more items come.
            receiving.add_done_callback(lambda _: batch.log.wake())
            sent = _Sent(opening.after)
            try:
                with Watch(call, self._limits) as watch:
                    await self._send(batch, reader, receiving, sent, watch)
            except StalledError:
                reader.detach(self._limits.resume)
                raise _slow_consumer(batch, sent.seq) from None
            finally:
                receiving.cancel()
                await asyncio.wait([receiving])
                if not receiving.cancelled():
                    # Told, or of no interest any more: both ends of a call fail when its client leaves.
                    receiving.exception()

    async def _receive(self, batch: Batch, requests: Requests, call: Call) -> TokenwireError | None:
        """Takes items until the client half-closes.

        Returns the error to end the call with as soon as the items in flight have ended. Raises what ends it at once.
        """
        while True:
            while batch.full:
                await batch.log.changed()
            try:
                request: Any = await anext(requests)
            except StopAsyncIteration:
                return None
            if request.HasField("open"):
                raise InvalidRequestError("open", "only the first message opens a batch")
            key = key_of(request.item)
            # Another client of this batch may have taken the place meanwhile.
            while batch.full and batch.needs(key):
                await batch.log.changed()
            try:
                self._batches.refuse_while_draining()
                self._batches.start(batch, key, self._items.answer(request.item, call.context))
            except TokenwireError as error:
                return error

    async def _send(
        self,
        batch: Batch,
        reader: BatchReader,
        receiving: "asyncio.Task[TokenwireError | None]",
        sent: "_Sent",
        watch: Watch,
    ) -> None:
        progress = _Progress(batch, watch)
        if sent.seq:
            # There may be nothing new to tell for long; so the client knows that it is in.
            await progress.write(closed=False)
        if batch.log.ended:
            # Whoever has read the end already gets it again: every call that ends well has one.
            sent.seq = min(sent.seq, batch.log.head - 1)
        while True:
            entry = batch.log.entry(sent.seq + 1)
            if entry is not None and (reader.closed or not isinstance(entry.event, BatchEnd)):
                await watch.write(await self._items.told(entry, batch.tenant))
                sent.seq = entry.seq
                batch.sent(sent.seq)
                if isinstance(entry.event, BatchEnd):
                    return
                continue
            if receiving.done() and not reader.closed:
                refusal = receiving.result()
                if refusal is None:
                    # Or the client has left: then this cannot be written, and the batch is not closed.
                    await progress.write(closed=True)
                    batch.close(reader)
                    continue
                if not batch.running:
                    raise refusal
            if self._batches.draining and not batch.running and not batch.log.ended:
                self._batches.refuse_while_draining()
            await progress.until_changed(closed=reader.closed)


class _Sent:
    """How far a client is: the number of the last event that was written to it."""

    __slots__ = ("seq",)

    def __init__(self, seq: int) -> None:
        self.seq = seq


class _Progress:
    """Tells now and then how far the batch is, if that has changed; and in silence, as a heartbeat."""

    def __init__(self, batch: Batch, watch: Watch) -> None:
        self._batch = batch
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._told: object = self._state()
        self._due = self._loop.time() + PROGRESS_SECONDS

    async def write(self, *, closed: bool) -> None:
        """Tells it now."""
        self._told = self._state()
        self._due = self._loop.time() + PROGRESS_SECONDS
        await self._watch.write(to_progress(self._batch, closed=closed))

    async def until_changed(self, *, closed: bool) -> None:
        """Waits until the batch wakes its readers; meanwhile tells what has changed, once that is due."""
        if self._told == self._state():
            if not await self._watch.change(self._batch.log.changed):
                await self.write(closed=closed)
            return
        if self._loop.time() < self._due:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._due):
                    await self._batch.log.changed()
                return
        await self.write(closed=closed)

    def _state(self) -> object:
        batch = self._batch
        return batch.received, batch.running, batch.succeeded, batch.failed


def _slow_consumer(batch: Batch, seq: int) -> TokenwireError:
    return TokenwireError(
        Code.ABORTED,
        "SLOW_CONSUMER",
        "the client did not read for too long; the batch goes on, and can be opened again after the event it has",
        retryable=True,
        metadata={"batch_id": batch.id, "after": str(seq)},
    )


async def _opening(requests: Requests) -> BatchOptions:
    """Reads the first message."""
    try:
        request: batch_service_pb2.BatchGenerateRequest = await anext(requests)
    except StopAsyncIteration:
        raise InvalidRequestError("open", "the first message opens the batch") from None
    if not request.HasField("open"):
        raise InvalidRequestError("open", "the first message opens the batch")
    opened = request.open
    return BatchOptions(
        batch_id=opened.batch_id,
        after=opened.after,
        max_in_flight=opened.max_in_flight if opened.HasField("max_in_flight") else None,
        total=opened.total,
        orphan_grace=_seconds(opened.orphan_grace) if opened.HasField("orphan_grace") else None,
    )


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
