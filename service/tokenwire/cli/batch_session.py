"""A batch from its first item to its end, over as many calls as that takes."""

import asyncio
import random
import secrets
from contextlib import suppress
from typing import Any

from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from grpc.aio import AioRpcError

from tokenwire.cli.batch_lines import Line, Lines
from tokenwire.cli.batch_progress import BatchProgress
from tokenwire.cli.batch_results import Results
from tokenwire.cli.connection import Connection
from tokenwire.cli.failure import CommandError, Report
from tokenwire.cli.options import DEFAULT_GRACE_SECONDS
from tokenwire.cli.rpc_failure import failure_of
from tokenwire.cli.stream import say
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchGenerateRequest, BatchItem, BatchItemDone, BatchOpen
from tokenwire.v1.batch_service_pb2_grpc import BatchServiceStub
from tokenwire.v1.finish_pb2 import STATUS_CODE_INVALID_ARGUMENT, RunError

# Calls that bring nothing new, one after the other, until the command gives up.
TRIES = 8
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 10.0
LEAVE_SECONDS = 3.0
# The batch cannot be gone on with, but its items can: in another one.
_GONE = ("BATCH_NOT_FOUND", "BATCH_ENDED", "TOO_MANY_ITEMS")
# An item that was cancelled while nobody read the batch; it is sent again.
_CANCELLED = "ORPHANED"


class Session:
    """Sends items and takes their results.

    Args:
        connection: the connection to the server.
        lines: the items.
        results: where results go.
        progress: where progress is shown.
        in_flight: how many items at a time; None: as the server likes.
    """

    def __init__(
        self,
        connection: Connection,
        lines: Lines,
        results: Results,
        progress: BatchProgress,
        *,
        in_flight: int | None,
    ) -> None:
        self._connection = connection
        self._lines = lines
        self._results = results
        self._progress = progress
        self._in_flight = in_flight
        self._batch_id = _new_id()
        self._after = 0
        # How many items this batch was given, and may be given once the server has said so.
        self._given = 0
        self._most: int | None = None
        # Items that were read and have not ended, in their order.
        self._open: dict[str, BatchItem] = {}
        self._cancelled: dict[str, BatchEvent] = {}
        self._running = 0
        self._heard = False
        self._all_read = False
        self._ended = False
        self._answered = asyncio.Event()

    def run(self, *, again: str) -> None:
        """Answers every line.

        Args:
            again: the command that goes on later, if there is one.

        Raises CommandError if the server cannot be reached or refuses, KeyboardInterrupt at Ctrl-C.
        """
        try:
            self._connection.run(self._run(again))
        except KeyboardInterrupt:
            results = self._results
            of = f" of {self._lines.total + results.skipped}" if self._lines.total else ""
            hint = f"; to go on: {again}" if again else ""
            say(f"{results.done + results.skipped}{of} items are done, {results.failed} of them failed{hint}")
            raise
        self._progress.end(self._results.done, self._results.failed, self._results.skipped)

    async def _run(self, again: str) -> None:
        hint = f"To go on: {again}" if again else ""
        tries = 0
        while not self._ended:
            before = self._results.done
            try:
                await self._call()
            except AioRpcError as error:
                failure = failure_of(error, self._connection.target, answered=self._heard, hint=hint)
                tries = 1 if self._results.done > before else tries + 1
                if tries > TRIES or not self._goes_on(error.code(), failure.report):
                    raise failure from None
                pause = failure.report.retry_after or min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**tries)
                why = "the call broke off" if _is_masked(error.code(), failure.report) else failure.report.message
                self._progress.note(f"{why}; trying again")
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            except (asyncio.CancelledError, OSError, CommandError):
                # Ctrl-C, or nobody takes the results.
                await self._leave()
                raise

    def _goes_on(self, code: StatusCode, report: Report) -> bool:
        """Whether another call may bring more; if so, makes ready for it."""
        if report.reason in _GONE:
            limit = report.metadata.get("limit", "")
            if limit.isdigit():
                self._most = int(limit)
            self._begin_another()
            return True
        return _is_masked(code, report) or (self._heard and code is StatusCode.UNAVAILABLE)

    def _begin_another(self) -> None:
        self._batch_id, self._after, self._given = _new_id(), 0, len(self._open)

    async def _call(self) -> None:
        stub = BatchServiceStub(self._connection.channel)
        call: Any = stub.BatchGenerate()
        self._answered = asyncio.Event()
        ended = False
        sending = asyncio.create_task(self._send(call))
        # Without it no more would come, and the end neither.
        sending.add_done_callback(lambda task: None if task.cancelled() or not task.exception() else call.cancel())
        try:
            async for event in call:
                self._heard = True
                self._answered.set()
                self._event(event)
                ended = event.HasField("end")
            if not ended:
                raise CommandError("the stream ended without its `end` event: items may be missing")
        finally:
            call.cancel()
            sending.cancel()
            await asyncio.wait([sending])
            error = None if sending.cancelled() else sending.exception()
            if error is not None and not isinstance(error, AioRpcError | asyncio.InvalidStateError):
                # Not the call's own, which whoever reads it is told.
                raise error

    async def _send(self, call: Any) -> None:
        await call.write(BatchGenerateRequest(open=self._opening(DEFAULT_GRACE_SECONDS)))
        # A refusal of the batch would be masked by that of a write.
        await self._answered.wait()
        for item in list(self._open.values()):
            await call.write(BatchGenerateRequest(item=item))
        while not self._all_read and (self._most is None or self._given < self._most):
            line = await self._lines.next()
            if line is None:
                self._all_read = True
            elif line.item is None:
                self._take(_wrong(line))
            else:
                self._open[line.item_id] = line.item
                self._given += 1
                await call.write(BatchGenerateRequest(item=line.item))
        await call.done_writing()

    def _event(self, event: BatchEvent) -> None:
        self._after = event.seq or self._after
        match event.WhichOneof("event"):
            case "item_started":
                self._cancelled.pop(event.item_started.item_id, None)
            case "item_done":
                done = event.item_done
                if done.error.reason == _CANCELLED and done.item_id in self._open:
                    # If this comes from before the line broke, the item was sent again meanwhile.
                    self._cancelled[done.item_id] = event
                    return
                if self._open.pop(done.item_id, None) is None:
                    return
            case "progress":
                self._running = event.progress.running
            case "end":
                self._ended = self._all_read
                for left in self._cancelled.values():
                    self._take(left)
                self._cancelled.clear()
                if not self._ended:
                    self._begin_another()
        self._take(event)

    def _take(self, event: BatchEvent) -> None:
        self._results.event(event)
        self._progress.show(self._results.done, self._results.failed, self._running)

    async def _leave(self) -> None:
        """Tells the server that nobody waits any more, so that it stops what is in flight."""
        if not self._heard or self._ended:
            return
        with suppress(AioRpcError, TimeoutError, asyncio.InvalidStateError):
            async with asyncio.timeout(LEAVE_SECONDS):
                call: Any = BatchServiceStub(self._connection.channel).BatchGenerate()
                await call.write(BatchGenerateRequest(open=self._opening(0)))
                await call.done_writing()
                # It has heard it when it answers.
                await call.read()
                call.cancel()

    def _opening(self, grace_seconds: float) -> BatchOpen:
        grace = Duration()
        grace.FromMilliseconds(round(grace_seconds * 1000))
        return BatchOpen(
            batch_id=self._batch_id,
            after=self._after,
            max_in_flight=self._in_flight,
            total=min(self._lines.total, self._most) if self._most is not None else self._lines.total,
            orphan_grace=grace,
        )


def _is_masked(code: StatusCode, report: Report) -> bool:
    """Whether a write to a call that was ending put grpc's own status in place of the server's (grpcio 1.85.1).

    The next call hears the server's.
    """
    return code is StatusCode.INTERNAL and not report.rpc_id


def _new_id() -> str:
    return f"cli_{secrets.token_hex(12)}"


def _wrong(line: Line) -> BatchEvent:
    error = RunError(code=STATUS_CODE_INVALID_ARGUMENT, reason="INVALID_LINE", message=line.wrong)
    return BatchEvent(item_done=BatchItemDone(item_id=line.item_id, error=error))
