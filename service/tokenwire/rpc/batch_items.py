"""Answers the items of a batch as the unary RPCs would, and tells their answers."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from tokenwire.delivery.view import check_delivery
from tokenwire.dispatch.batch import Answer, Answered, Key
from tokenwire.dispatch.ending import failure
from tokenwire.dispatch.run import Run, StopCause
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.context import Clock, RequestContext
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.domain.events import RunError
from tokenwire.domain.request import Delivery, Submission
from tokenwire.journal.batch import BatchEntry, ItemDone
from tokenwire.rpc.batch_events import to_batch_event
from tokenwire.rpc.reading import Reader
from tokenwire.rpc.requests import delivery_of, from_chat, from_generate
from tokenwire.rpc.submission import Submitter
from tokenwire.transport.call import Call, Kind
from tokenwire.v1 import batch_service_pb2

# What an item's outcome may take in a message beside its answer.
ENVELOPE_BYTES = 1024


class ItemCall(Call):
    """What an item's submission knows of the call that brought it: it may be over long before the item is."""

    def __init__(self, context: RequestContext) -> None:
        self.method = ""
        # Nobody is told anything before the end.
        self.kind = Kind.UNARY
        self.context = context
        self.delivery = Delivery()
        self.messages = 0
        self.parse: Callable[[bytes], Any] = bytes

    @property
    def metadata(self) -> Mapping[str, str]:
        """Empty."""
        return {}

    @property
    def time_remaining(self) -> float | None:
        """The call's deadline bounds the call alone."""
        return None

    async def write(self, message: object) -> None:
        """Never called: an item is no stream."""
        raise AssertionError("an item has no stream")


class Items:
    """The items of all batches.

    Args:
        submitter: finds or starts their runs.
        runs: the runs.
        reader: reads them.
        check: holds a request to its rules; raises INVALID_ARGUMENT.
        clock: the time.
        message_max_bytes: the largest message.
    """

    def __init__(
        self,
        submitter: Submitter,
        runs: Runs,
        reader: Reader,
        *,
        check: Callable[[Any], None],
        clock: Clock,
        message_max_bytes: int,
    ) -> None:
        self._submitter = submitter
        self._runs = runs
        self._reader = reader
        self._check = check
        self._clock = clock
        self._result_max_bytes = message_max_bytes - ENVELOPE_BYTES

    def answer(self, item: batch_service_pb2.BatchItem, context: RequestContext) -> Answer:
        """Returns what answers an item that came with a call."""
        call = ItemCall(
            RequestContext(rpc_id=context.rpc_id, tenant=context.tenant, received_at=self._clock.monotonic())
        )

        async def answer(accepted: Callable[[str], None]) -> Answered:
            try:
                run = await self._submitter.submit(self._submission(item), call)
            except TokenwireError as error:
                return Answered(error=failure(error, wrote_text=False))
            accepted(run.id)
            try:
                with self._runs.reading(run):
                    await run.finished()
            finally:
                # Cancelled: the grace was the batch's, so the run has none of its own.
                if not run.readers and run.grace is not None:
                    run.stop(StopCause.ORPHANED)
            # One that was handed over has no end; its batch dies with this process, so the item is asked for again.
            left = run.error if run.end is not None else _HANDED_OVER
            return Answered(run_id=run.id, error=left, usage=run.usage)

        return answer

    async def told(self, entry: BatchEntry, tenant: str) -> batch_service_pb2.BatchEvent:
        """Writes an event; the answer of an item that ended is read from its run."""
        done = entry.event
        if not isinstance(done, ItemDone) or done.error is not None:
            return to_batch_event(entry, error=done.error if isinstance(done, ItemDone) else None)
        try:
            result = await self._reader.result(await self._run(done, tenant))
        except TokenwireError as error:
            return to_batch_event(entry, error=failure(error, wrote_text=False))
        size = result.ByteSize()
        if size > self._result_max_bytes:
            return to_batch_event(entry, error=_too_large(size))
        return to_batch_event(entry, result=result)

    async def _run(self, done: ItemDone, tenant: str) -> Run:
        try:
            return await self._runs.find(tenant, run_id=done.run_id)
        except NotFoundError:
            raise TokenwireError(
                Code.OUT_OF_RANGE, "TEXT_DROPPED", "the answer was well, but its retention is over"
            ) from None

    def _submission(self, item: batch_service_pb2.BatchItem) -> Submission:
        request = item.generate if item.WhichOneof("request") == "generate" else item.chat
        self._check(request)
        check_delivery(delivery_of(request))
        return from_generate(item.generate) if request is item.generate else from_chat(item.chat)


_HANDED_OVER = RunError(
    code=Code.UNAVAILABLE,
    reason="DRAINING",
    message="the server is shutting down",
    retryable=True,
    retry_after=1.0,
)


def key_of(item: batch_service_pb2.BatchItem) -> Key:
    """Returns the item's id and a hash of its request."""
    request: ProtoMessage = item.generate if item.WhichOneof("request") == "generate" else item.chat
    name = request.DESCRIPTOR.full_name.encode()
    data = request.SerializeToString(deterministic=True)
    return item.item_id, hashlib.sha256(name + b"\0" + data).digest()[:16]


def _too_large(size: int) -> RunError:
    return RunError(
        code=Code.RESOURCE_EXHAUSTED,
        reason="MESSAGE_TOO_LARGE",
        message=f"the answer takes {size} bytes, which is more than a message may have; AttachRun streams it",
    )
