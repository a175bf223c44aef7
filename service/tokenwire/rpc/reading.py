"""Streams a run's view into a call, or waits for its answer."""

import asyncio
import json

from google.protobuf.json_format import MessageToDict

from tokenwire.delivery.collect import Collector
from tokenwire.delivery.view import View
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.cursor import START, Cursor
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import Detached, DetachReason, Envelope, Event, Heartbeat, Phase, Progress, RunError
from tokenwire.domain.generation import PrefillProgress
from tokenwire.rpc.events import to_cursor
from tokenwire.rpc.results import to_result
from tokenwire.rpc.watch import StalledError, StreamLimits, Watch
from tokenwire.transport.call import Call
from tokenwire.v1 import run_pb2

# How long a reader waits for what it has read at another server.
BEHIND_SECONDS = 1.0


class Reader:
    """Reads runs for RPCs.

    Args:
        runs: counts the readers.
        limits: how long streams may stand still.
    """

    def __init__(self, runs: Runs, limits: StreamLimits | None = None) -> None:
        self._runs = runs
        self._limits = limits or StreamLimits()

    async def stream(self, run: Run, after: Cursor | None, call: Call) -> None:
        """Writes the run's events after a cursor until its end, or until its readers are sent away.

        Raises the run's error after `end`, UNAVAILABLE after `detached`, ABORTED if the client does not read.
        """
        view = await self._view(run, after or START, call)
        with self._runs.reading(run) as reading:
            reading.view = view
            stream = _Stream(run, view, call, self._resume_within(run))
            try:
                with Watch(call, self._limits) as watch:
                    await stream.write_to(watch)
            except StalledError:
                reading.detach(self._limits.resume)
                raise stream.slow_consumer() from None
        _raise(run, stream.cursor)

    async def result(self, run: Run) -> run_pb2.RunResult:
        """Waits for the run's end and returns its whole answer.

        Raises the run's error, or UNAVAILABLE if the run goes on elsewhere.
        """
        with self._runs.reading(run):
            while run.end is None and run.handed_over is None:
                await run.log.changed()
            if run.end is None:
                raise _detached(run, START)
            view = View(run.log, token_ids=bool(run.submission.output.token_ids))
            collector = Collector()
            collector.add(view.take())
        _raise(run, view.cursor)
        return to_result(run, collector)

    async def _view(self, run: Run, after: Cursor, call: Call) -> View:
        """Opens a view. With several servers, what was read at one of them may be known here a moment later."""
        output = run.submission.output
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                while True:
                    try:
                        return View(
                            run.log,
                            after,
                            call.delivery,
                            token_ids=bool(output.token_ids),
                            full_text=bool(output.full_text),
                        )
                    except TokenwireError as error:
                        if error.reason != "JOURNAL_BEHIND" and not _may_come(run, after, error):
                            raise
                        if run.handed_over is not None:
                            raise _detached(run, after) from None
                    await run.log.changed()
        except TimeoutError:
            raise TokenwireError(
                Code.UNAVAILABLE,
                "JOURNAL_BEHIND",
                "this server has not yet read what was read of the run elsewhere",
                retryable=True,
                retry_after=BEHIND_SECONDS,
                metadata=_place(run, after),
            ) from None

    def _resume_within(self, run: Run) -> float:
        return max(run.grace or 0.0, self._limits.resume)


class _Stream:
    """One reader's stream.

    Attributes:
        cursor: what the client has for sure; the view is ahead of it while a message is written.
    """

    __slots__ = ("_call", "_resume_within_ms", "_run", "_view", "cursor")

    def __init__(self, run: Run, view: View, call: Call, resume_within: float) -> None:
        self.cursor = view.cursor
        self._run = run
        self._view = view
        self._call = call
        self._resume_within_ms = int(resume_within * 1000)

    async def write_to(self, watch: Watch) -> None:
        """Writes until the end of the run. Raises UNAVAILABLE after `detached`."""
        run, view = self._run, self._view
        told: PrefillProgress | None = None
        while True:
            for envelope in view.take():
                await watch.write(envelope)
                self.cursor = envelope.cursor
            if view.ended:
                return
            # What was appended while we wrote is there already.
            if view.behind:
                continue
            if run.handed_over is not None:
                refusal = _detached(run, self.cursor)
                await watch.write(self._aside(self._farewell(run.handed_over)))
                raise refusal
            prefill = run.writer.prefill
            if prefill is not None and prefill is not told:
                told = prefill
                await watch.write(self._aside(_prefill(prefill)))
            elif not await watch.change(run.log.changed):
                await watch.write(self._aside(Heartbeat()))

    def slow_consumer(self) -> TokenwireError:
        """Returns what a client is told that did not read.

        There is no `detached` before it: grpc takes no further message while it cannot get rid of the last one.
        """
        return TokenwireError(
            Code.ABORTED,
            "SLOW_CONSUMER",
            "the client did not read for too long; the run goes on, and can be read on from the cursor",
            retryable=True,
            metadata=_place(self._run, self.cursor) | {"resume_within_ms": str(self._resume_within_ms)},
        )

    def _farewell(self, reason: DetachReason) -> Detached:
        retry_after_ms = int(_RETRY_SECONDS[reason] * 1000)
        return Detached(reason=reason, resume_within_ms=self._resume_within_ms, retry_after_ms=retry_after_ms)

    def _aside(self, event: Event) -> Envelope:
        """Wraps an event that is not in the journal."""
        return Envelope(event, self.cursor, self._run.elapsed_ms())


# Between `detached` and another attempt: at a drain, until nobody listens here any more.
_RETRY_SECONDS = {DetachReason.DRAINING: 1.0, DetachReason.MOVED: 0.1}
_MESSAGES = {
    DetachReason.DRAINING: "the server is shutting down; the run goes on, and can be read on from the cursor",
    DetachReason.MOVED: "another server goes on with the run; it can be read on from the cursor",
}


def _prefill(read: PrefillProgress) -> Progress:
    return Progress(
        phase=Phase.PREFILL,
        prefill_total=read.prompt_tokens,
        prefill_cached=read.cached_tokens,
        prefill_done=read.done_tokens,
    )


def _raise(run: Run, cursor: Cursor) -> None:
    error = run.error
    if error is not None:
        raise run_error(run, error, cursor)


def _may_come(run: Run, after: Cursor, error: TokenwireError) -> bool:
    """Whether a cursor beyond what is committed here may be another server's, whom the journal told it first."""
    if error.reason != "CURSOR_AHEAD" or run.end is not None:
        return False
    if not run.here:
        return True
    channels = ((run.log.channel(channel), offset) for channel, offset in after.ahead)
    return after.seq <= run.log.head and all(found and offset <= len(found.text) for found, offset in channels)


def _detached(run: Run, cursor: Cursor) -> TokenwireError:
    assert run.handed_over is not None
    return TokenwireError(
        Code.UNAVAILABLE,
        run.handed_over.name,
        _MESSAGES[run.handed_over],
        retryable=True,
        retry_after=_RETRY_SECONDS[run.handed_over],
        metadata=_place(run, cursor),
    )


def run_error(run: Run, error: RunError, cursor: Cursor) -> TokenwireError:
    """Turns a run's error into the status of a stream that has read it."""
    return TokenwireError(
        error.code,
        error.reason,
        error.message,
        retryable=error.retryable,
        retry_after=error.retry_after,
        violations=error.violations,
        resource=error.resource,
        metadata={**error.metadata, **_place(run, cursor)},
    )


def _place(run: Run, cursor: Cursor) -> dict[str, str]:
    exact: dict[str, object] = {"seq": cursor.seq}
    if cursor.ahead or cursor.epoch is not None:
        exact = MessageToDict(to_cursor(cursor))
    return {"run_id": run.id, "cursor": json.dumps(exact)}
