"""All batches of this process: found by id, cancelled when nobody reads, forgotten after a time."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tokenwire.dispatch.batch import Answer, Batch, BatchReader, Key
from tokenwire.domain.context import Clock
from tokenwire.domain.errors import Code, InvalidRequestError, NotFoundError, TokenwireError

DEFAULT_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What batches may have, and how long they live, in seconds.

    Args:
        in_flight: the most items of a batch at the same time.
        items: the items of all batches together, those that have ended and are kept included.
        orphan_grace: without a reader, where the request does not say.
        orphan_grace_max: the most a request may ask for.
        retention: how long a batch is kept that has ended, or was cancelled.
    """

    in_flight: int
    items: int
    orphan_grace: float
    orphan_grace_max: float
    retention: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What a client asks of a batch when it opens or joins it; None or 0: nothing.

    Args:
        batch_id: which one; empty: a new one.
        after: the client has read its events up to this number.
        max_in_flight: how many items may be in flight.
        total: how many items there will be.
        orphan_grace: seconds that it goes on without a reader.
    """

    batch_id: str = ""
    after: int = 0
    max_in_flight: int | None = None
    total: int = 0
    orphan_grace: float | None = None


class Batches:
    """The batches of this process. An id names a batch within a tenant."""

    def __init__(self, limits: BatchLimits, clock: Clock, new_id: Callable[[], str]) -> None:
        self._limits = limits
        self._clock = clock
        self._new_id = new_id
        # In the order of their last use, so that the first one that has ended is the oldest.
        self._batches: dict[tuple[str, str], Batch] = {}
        # The items of all of them; one that is empty counts as one.
        self._held = 0
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether the server shuts down."""
        return self._draining

    def open(self, tenant: str, options: BatchOptions) -> Batch:
        """Returns a new batch, or the one that has the id, which then takes what the options say.

        Raises NOT_FOUND for an `after` of a batch that is not there, INVALID_ARGUMENT for one past its end,
        RESOURCE_EXHAUSTED if there is no room, UNAVAILABLE for a new one while draining.
        """
        batch = self._batches.get((tenant, options.batch_id)) if options.batch_id else None
        if batch is None:
            return self._new(tenant, options)
        if options.after > batch.log.head:
            raise InvalidRequestError("open.after", "is past the batch", reason="CURSOR_AHEAD")
        batch.total = options.total or batch.total
        if options.max_in_flight is not None:
            batch.max_in_flight = min(options.max_in_flight, self._limits.in_flight)
        if options.orphan_grace is not None:
            batch.grace = self._grace(options)
        batch.sent(options.after)
        # There may be more places now.
        batch.log.wake()
        return batch

    @contextmanager
    def reading(self, batch: Batch) -> Iterator[BatchReader]:
        """Counts a reader; when the last one leaves, the batch's grace begins."""
        reader = BatchReader()
        batch.readers.append(reader)
        _stop_timer(batch)
        try:
            yield reader
        finally:
            batch.readers.remove(reader)
            if reader.detached:
                batch.kept_until = max(batch.kept_until, asyncio.get_running_loop().time() + reader.detached)
            # Those that are still here may all have half-closed.
            batch.settle()
            if not batch.readers:
                self._left_alone(batch)

    def start(self, batch: Batch, key: Key, answer: Answer) -> None:
        """Runs an item of a batch, unless it is known.

        Raises FAILED_PRECONDITION if the batch has ended, RESOURCE_EXHAUSTED if there is no room for the item.
        """
        if not batch.needs(key):
            return
        if batch.log.ended:
            raise TokenwireError(
                Code.FAILED_PRECONDITION, "BATCH_ENDED", "the batch has ended and takes no more items; open another one"
            )
        if batch.received and not batch.knows(key):
            self._make_room()
            self._held += 1
        batch.start(key, answer)

    def refuse_while_draining(self) -> None:
        """Raises UNAVAILABLE once the server shuts down."""
        if self._draining:
            raise TokenwireError(
                Code.UNAVAILABLE, "DRAINING", "the server is shutting down", retryable=True, retry_after=1.0
            )

    def drain(self) -> None:
        """From now on takes no new batches and no new items; those in flight are not touched."""
        self._draining = True
        for batch in self._batches.values():
            batch.log.wake()

    async def close(self) -> None:
        """Cancels what is left and forgets every batch."""
        for batch in list(self._batches.values()):
            self._forget(batch)
            await batch.stop()

    def _new(self, tenant: str, options: BatchOptions) -> Batch:
        if options.after:
            raise NotFoundError("batch", options.batch_id, "the batch does not exist, or is forgotten")
        self.refuse_while_draining()
        if options.total > self._limits.items:
            raise self._no_room()
        self._make_room()
        self._held += 1
        batch = Batch(
            id=options.batch_id or self._new_id(),
            tenant=tenant,
            max_in_flight=min(options.max_in_flight or DEFAULT_IN_FLIGHT, self._limits.in_flight),
            total=options.total,
            grace=self._grace(options),
            retention=self._limits.retention,
            clock=self._clock,
        )
        self._batches[tenant, batch.id] = batch
        return batch

    def _grace(self, options: BatchOptions) -> float:
        asked = self._limits.orphan_grace if options.orphan_grace is None else options.orphan_grace
        return min(asked, self._limits.orphan_grace_max)

    def _make_room(self) -> None:
        """Sees to it that one more item, or batch, fits: what nobody reads any more goes first, the oldest first."""
        while self._held >= self._limits.items:
            oldest = next((one for one in self._batches.values() if not one.readers and not one.running), None)
            if oldest is None:
                raise self._no_room()
            self._forget(oldest)

    def _no_room(self) -> TokenwireError:
        return TokenwireError(
            Code.RESOURCE_EXHAUSTED,
            "TOO_MANY_ITEMS",
            "the server has no room for so many items of batches; send fewer in one batch, or again later",
            retryable=True,
            metadata={"limit": str(self._limits.items)},
        )

    def _left_alone(self, batch: Batch) -> None:
        if self._batches.get((batch.tenant, batch.id)) is not batch:
            # Forgotten while the server shut down.
            batch.cancel()
            return
        # To the end of the row: this is its last use.
        del self._batches[batch.tenant, batch.id]
        self._batches[batch.tenant, batch.id] = batch
        grace = max(batch.grace, batch.kept_until - asyncio.get_running_loop().time())
        if batch.running and grace > 0:
            self._call_later(batch, grace, self._orphaned)
        else:
            self._orphaned(batch)

    def _orphaned(self, batch: Batch) -> None:
        batch.cancel()
        self._call_later(batch, self._limits.retention, self._forget)

    def _call_later(self, batch: Batch, seconds: float, call: Callable[[Batch], None]) -> None:
        _stop_timer(batch)
        batch.timer = asyncio.get_running_loop().call_later(seconds, call, batch)

    def _forget(self, batch: Batch) -> None:
        _stop_timer(batch)
        del self._batches[batch.tenant, batch.id]
        self._held -= batch.received or 1


def _stop_timer(batch: Batch) -> None:
    if batch.timer is not None:
        batch.timer.cancel()
        batch.timer = None
