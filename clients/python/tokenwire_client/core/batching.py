"""Follows one batch over as many calls, and as many batches of the server, as it takes."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchGenerateRequest, BatchItem, BatchItemDone, BatchOpen
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.finish_pb2 import RunError
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire_client.core.answer import Result
from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure
from tokenwire_client.core.following import Again
from tokenwire_client.core.pace import Pace
from tokenwire_client.core.policy import Policy
from tokenwire_client.core.requests import ORPHAN_GRACE_SECONDS, duration, new_id
from tokenwire_client.errors import BrokenError, IntegrityError, RefusedError, TokenwireClientError

# What an item may be: a prompt, a request, or a request with a name.
Item = str | GenerateRequest | ChatRequest | BatchItem

# The batch cannot be gone on with, but its items can: in another one.
_GONE = ("BATCH_NOT_FOUND", "BATCH_ENDED", "TOO_MANY_ITEMS")
# An item that was cancelled while nobody read the batch; it is sent again.
_CANCELLED = "ORPHANED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an item ended.

    Args:
        message: as the contract has it.
    """

    message: BatchItemDone

    @property
    def item_id(self) -> str:
        """The item."""
        return self.message.item_id

    @property
    def run_id(self) -> str:
        """Its run; empty if it was refused."""
        return self.message.run_id

    @property
    def result(self) -> Result | None:
        """The whole answer; None if it failed."""
        return Result(self.message.result) if self.message.HasField("result") else None

    @property
    def error(self) -> RunError | None:
        """Why it failed; None if it did not."""
        return self.message.error if self.message.HasField("error") else None


class Batching:
    """A batch from its first item to its end.

    For each call: `open` is its first message; once the server has answered, send what `again` gives until that is
    None, then new items, each put in by `take`, as long as it `takes` them; then half-close. Give each event to `add`,
    and the call's end to `finished` or `failed`, as with a run.

    Args:
        policy: how hard to try.
        clock: seconds, from any beginning.
        rng: chooses the waits.
        in_flight: how many items at a time; None: as the server likes.
        total: how many items there will be, for the server's progress; 0: not known.
        batch_id: the batch's id; empty: one is made.

    Attributes:
        ended: whether every item has ended.
        exhausted: whether there are no new items; set by the caller.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        clock: Callable[[], float],
        rng: random.Random,
        in_flight: int | None = None,
        total: int = 0,
        batch_id: str = "",
    ) -> None:
        self.ended = False
        self.exhausted = False
        self._policy = policy
        self._pace = Pace(policy, clock, rng)
        self._in_flight = in_flight
        self._total = total
        self._batch_id = batch_id or new_id("py")
        self._after = 0
        # How many items this batch was given, and may be given once the server has said so.
        self._given = 0
        self._most: int | None = None
        # Items that have not ended, in their order, and those that this call has not sent.
        self._open: dict[str, BatchItem] = {}
        self._unsent: deque[BatchItem] = deque()
        self._cancelled: dict[str, BatchEvent] = {}
        self._names: set[str] = set()
        self._count = 0
        self._heard = False
        self._over = False
        self._batch_ended = False

    @property
    def batch_id(self) -> str:
        """The batch's id on the server; another one if it had to be begun anew."""
        return self._batch_id

    @property
    def takes(self) -> bool:
        """Whether this batch may be given new items."""
        return not self.exhausted and (self._most is None or self._given < self._most)

    @property
    def leave(self) -> BatchGenerateRequest | None:
        """What to open the batch with, and drop, so that the server stops it; None: there is nothing to stop."""
        return None if self.ended or self._over else self._opening(0.0)

    def open(self) -> BatchGenerateRequest:
        """Begins the next call; returns its first message."""
        self._batch_ended = False
        self._unsent = deque(self._open.values())
        return self._opening(ORPHAN_GRACE_SECONDS)

    def again(self) -> BatchGenerateRequest | None:
        """Returns the next item that this call has not sent."""
        return BatchGenerateRequest(item=self._unsent.popleft()) if self._unsent else None

    def take(self, given: Item) -> None:
        """Takes a new item; `again` gives it. Raises ValueError if another one has its id."""
        self._count += 1
        item = _named(given, self._count)
        if item.item_id in self._names:
            raise ValueError(f"two items have the id {item.item_id}")
        self._names.add(item.item_id)
        self._open[item.item_id] = item
        self._unsent.append(item)
        self._given += 1

    def add(self, event: BatchEvent) -> list[BatchEvent]:
        """Takes the next event of the call; returns those that the caller is to have."""
        self._heard = True
        self._after = event.seq or self._after
        match event.WhichOneof("event"):
            case "item_started":
                self._cancelled.pop(event.item_started.item_id, None)
                self._pace.progress()
            case "item_done":
                done = event.item_done
                if done.error.reason == _CANCELLED and done.item_id in self._open:
                    # If this comes from before the line broke, the item was sent again meanwhile.
                    self._cancelled[done.item_id] = event
                    return []
                if self._open.pop(done.item_id, None) is None:
                    return []
                self._pace.progress()
            case "end":
                return [*self._ended(), event]
        return [event]

    def finished(self) -> Again | None:
        """Takes the end of a call with the status OK."""
        if self.ended:
            return None
        if not self._batch_ended:
            failure = Failure(
                code=Code.DATA_LOSS, message="the stream ended without its `end` event: items may be missing"
            )
            raise self._error(IntegrityError, failure)
        return Again(seconds=0.0, attempt=0, failure=Failure(code=Code.OK, message="the next batch begins"))

    def failed(self, failure: Failure) -> Again | None:
        """Takes the end of a call with another status, or of its line."""
        if self.ended:
            return None
        self._heard = self._heard or failure.told
        if failure.reason in _GONE:
            limit = failure.metadata.get("limit", "")
            if limit.isdigit():
                self._most = int(limit)
            self._begin_another()
        elif not failure.passing(accepted=False):
            self._over = failure.told
            raise self._error(RefusedError, failure)
        seconds = self._pace.wait(failure.retry_after or 0.0) if self._heard or self._policy.wait_for_server else None
        if seconds is None:
            self._over = True
            raise self._error(BrokenError if failure.broken else RefusedError, failure)
        return Again(seconds=seconds, attempt=self._pace.attempt, failure=failure)

    def _ended(self) -> list[BatchEvent]:
        """Notes the end of a batch; returns the items that nobody will answer."""
        left = list(self._cancelled.values()) if self.exhausted else []
        for event in left:
            self._open.pop(event.item_done.item_id, None)
        self._cancelled.clear()
        self._batch_ended = True
        self.ended = self.exhausted and not self._open
        if not self.ended:
            self._begin_another()
        return left

    def _begin_another(self) -> None:
        self._batch_id, self._after, self._given = new_id("py"), 0, len(self._open)

    def _opening(self, grace_seconds: float) -> BatchGenerateRequest:
        opened = BatchOpen(
            batch_id=self._batch_id,
            after=self._after,
            max_in_flight=self._in_flight,
            total=min(self._total, self._most) if self._most is not None else self._total,
            orphan_grace=duration(grace_seconds),
        )
        return BatchGenerateRequest(open=opened)

    def _error(self, kind: type[TokenwireClientError], failure: Failure) -> TokenwireClientError:
        return kind(failure)


def _named(given: Item, number: int) -> BatchItem:
    if isinstance(given, BatchItem):
        return given
    if isinstance(given, ChatRequest):
        return BatchItem(item_id=str(number), chat=given)
    request = GenerateRequest(prompt=given) if isinstance(given, str) else given
    return BatchItem(item_id=str(number), generate=request)
