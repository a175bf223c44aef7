"""A batch: many items, each answered by a task of its own, a few at a time."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from tokenwire.domain.context import Clock
from tokenwire.domain.errors import Code
from tokenwire.domain.events import RunError, Usage
from tokenwire.journal.batch import BatchEnd, BatchEvent, BatchLog, BatchStarted, ItemDone, ItemStarted

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How an item ended: its run if it was accepted, its error if it failed, and what it cost."""

    run_id: str = ""
    error: RunError | None = None
    usage: Usage = field(default_factory=Usage)


# Answers an item; calls back with the run's id once there is one. Whatever fails is told, not raised; when it is
# cancelled, it stops its run.
Answer = Callable[[Callable[[str], None]], Awaitable[Answered]]
# An item's id and a hash of its request.
Key = tuple[str, bytes]


class _Item:
    """What is known of one request of a batch."""

    __slots__ = ("cancelled", "run_id")

    def __init__(self) -> None:
        self.run_id = ""
        self.cancelled = False


@dataclass(slots=True)
class BatchReader:
    """One client that follows a batch.

    Attributes:
        closed: whether it will send no more items.
        detached: seconds for which the batch waits for a reader, at least, once this one has left.
    """

    closed: bool = False
    detached: float = 0.0

    def detach(self, seconds: float) -> None:
        """Says that it is the server that makes this reader leave: the batch waits for it."""
        self.detached = max(self.detached, seconds)


class Batch:
    """The items of one batch. They belong to it and not to the call that brought them, which may break.

    An item takes a place from its start until its end was sent to a reader. So a client that does not read holds its
    own items back, and what waits to be sent is bounded by the places.

    Attributes:
        id: chosen by the client, or made by the server.
        tenant: whose it is.
        log: its journal.
        max_in_flight: how many places there are.
        total: how many items the client expects; 0: not known.
        grace: seconds that it goes on without a reader.
        received: items that were read; of these `running` have not ended, `succeeded` and `failed` have.
        usage: the tokens of the items that ended.
        readers: who follows it now.
        timer: ends its grace, or its retention.
        kept_until: seconds on the event loop's clock until which it waits for a reader at least.
    """

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the field's own name
        tenant: str,
        max_in_flight: int,
        total: int,
        grace: float,
        retention: float,
        clock: Clock,
    ) -> None:
        self.id = id
        self.tenant = tenant
        self.max_in_flight = max_in_flight
        self.total = total
        self.grace = grace
        self.succeeded = 0
        self.failed = 0
        self.usage = Usage()
        self.log = BatchLog()
        self.readers: list[BatchReader] = []
        self.timer: asyncio.TimerHandle | None = None
        self.kept_until = 0.0
        self._monotonic = clock.monotonic
        self._opened_at = clock.monotonic()
        self._items: dict[Key, _Item] = {}
        # Which request an id stands for: that of its first item.
        self._named: dict[str, bytes] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        # Numbers of the ends that no reader was sent yet.
        self._unsent: deque[int] = deque()
        self._append(BatchStarted(batch_id=id, retention_seconds=int(retention), max_in_flight=max_in_flight))

    @property
    def received(self) -> int:
        """How many items were read."""
        return len(self._items)

    @property
    def running(self) -> int:
        """How many items have not ended."""
        return len(self._running)

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return len(self._running) + len(self._unsent) >= self.max_in_flight

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since it was opened."""
        return int((self._monotonic() - self._opened_at) * 1000)

    def knows(self, key: Key) -> bool:
        """Whether an item came before."""
        return key in self._items

    def needs(self, key: Key) -> bool:
        """Whether an item is to be run: it is new, or was cancelled for want of a reader."""
        item = self._items.get(key)
        return item is None or item.cancelled

    def start(self, key: Key, answer: Answer) -> None:
        """Runs an item that `needs` it. One whose id stands for another request already fails."""
        assert not self.log.ended, "a batch that has ended takes no items"
        item_id, fingerprint = key
        before = self._items.get(key)
        if before is not None:
            self.failed -= 1
        item = self._items[key] = _Item()
        if self._named.setdefault(item_id, fingerprint) != fingerprint:
            self._done(key, Answered(error=_TAKEN))
            return
        task = asyncio.get_running_loop().create_task(self._run(key, item, answer), name=f"item of batch {self.id}")
        self._running[key] = task
        self.log.wake()

    def sent(self, seq: int) -> None:
        """Notes that a reader has all events up to a number, which may free places."""
        freed = False
        while self._unsent and self._unsent[0] <= seq:
            self._unsent.popleft()
            freed = True
        if freed:
            self.log.wake()

    def close(self, reader: BatchReader) -> None:
        """Notes that a reader sends no more items."""
        reader.closed = True
        self.settle()

    def settle(self) -> None:
        """Writes the end, if it is time: every item has ended, and all the clients that are here have half-closed."""
        if self.log.ended or self._running or not self.readers or not all(one.closed for one in self.readers):
            return
        self._append(BatchEnd(succeeded=self.succeeded, failed=self.failed, usage=self.usage))

    def cancel(self) -> None:
        """Ends every item that has not ended, as orphaned. Sent again, it is run again."""
        running, self._running = self._running, {}
        for key, task in running.items():
            item = self._items[key]
            item.cancelled = True
            self._done(key, Answered(run_id=item.run_id, error=_ORPHANED))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            task.cancel()

    async def stop(self) -> None:
        """Cancels every item and waits until nothing is left of them."""
        self.cancel()
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _run(self, key: Key, item: _Item, answer: Answer) -> None:
        def accepted(run_id: str) -> None:
            item.run_id = run_id
            self._append(ItemStarted(item_id=key[0], run_id=run_id))

        try:
            answered = await answer(accepted)
        except asyncio.CancelledError:
            if item.cancelled:
                raise
            # Of some inner task: nobody else cancels an item's.
            _log.exception("item failed by a bug", batch_id=self.id)
            answered = Answered(run_id=item.run_id, error=_INTERNAL)
        except Exception:
            _log.exception("item failed by a bug", batch_id=self.id)
            answered = Answered(run_id=item.run_id, error=_INTERNAL)
        # Nothing waits from here on, so that the task is over before anybody can see that its item is.
        if not item.cancelled:
            del self._running[key]
            self._done(key, answered)
            self.settle()

    def _done(self, key: Key, answered: Answered) -> None:
        if answered.error is None:
            self.succeeded += 1
        else:
            self.failed += 1
        self.usage = _sum(self.usage, answered.usage)
        self._unsent.append(self._append(ItemDone(item_id=key[0], run_id=answered.run_id, error=answered.error)))

    def _append(self, event: BatchEvent) -> int:
        return self.log.append(event, self.elapsed_ms)


_TAKEN = RunError(
    code=Code.ALREADY_EXISTS, reason="ITEM_ID_TAKEN", message="item_id: another item of this batch has this id"
)
_ORPHANED = RunError(
    code=Code.ABORTED, reason="ORPHANED", message="the item ended because nobody read its batch", retryable=True
)
_INTERNAL = RunError(code=Code.INTERNAL, reason="INTERNAL", message="internal error")


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
    )
