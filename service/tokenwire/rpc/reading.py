"""Streams a run's view into a call, or waits for its answer."""

import asyncio

from tokenwire.delivery.collect import Collector
from tokenwire.delivery.view import View
from tokenwire.dispatch.deadlines import Deadlines
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.cursor import START, Cursor
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import RunError
from tokenwire.rpc.results import to_result
from tokenwire.rpc.stream import Stream, detached, place
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
        self._deadlines = Deadlines(Watch.look)

    async def stream(self, run: Run, after: Cursor | None, call: Call) -> None:
        """Writes the run's events after a cursor until its end, or until its readers are sent away.

        Raises the run's error after `end`, UNAVAILABLE after `detached`, ABORTED if the client does not read.
        """
        after = after or START
        view = _view(run, after, call)
        if view is None:
            view = await self._later(run, after, call)
        with self._runs.reading(run) as reading:
            reading.view = view
            stream = Stream(run, view, self._resume_within(run))
            try:
                with Watch(call, self._limits, self._deadlines) as watch:
                    await stream.write_to(call, watch)
            except StalledError:
                reading.detach(self._limits.resume)
                raise stream.slow_consumer() from None
        _raise(run, stream.cursor)

    async def result(self, run: Run) -> run_pb2.RunResult:
        """Waits for the run's end and returns its whole answer.

        Raises the run's error, or UNAVAILABLE if the run goes on elsewhere.
        """
        with self._runs.reading(run):
            await _over(run)
            if run.end is None:
                raise detached(run, START)
            view = View(run.log, token_ids=bool(run.submission.output.token_ids))
            collector = Collector()
            collector.add(view.take())
        _raise(run, view.cursor)
        return to_result(run, collector)

    async def _later(self, run: Run, after: Cursor, call: Call) -> View:
        """Opens a view of what was read at another server, once it is known here."""
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                while True:
                    await run.log.changed()
                    view = _view(run, after, call)
                    if view is not None:
                        return view
        except TimeoutError:
            raise TokenwireError(
                Code.UNAVAILABLE,
                "JOURNAL_BEHIND",
                "this server has not yet read what was read of the run elsewhere",
                retryable=True,
                retry_after=BEHIND_SECONDS,
                metadata=place(run, after),
            ) from None

    def _resume_within(self, run: Run) -> float:
        return max(run.grace or 0.0, self._limits.resume)


def _view(run: Run, after: Cursor, call: Call) -> View | None:
    """Opens a view. With several servers, what was read at one of them may be known here a moment later: None."""
    output = run.submission.output
    try:
        return View(run.log, after, call.delivery, token_ids=bool(output.token_ids), full_text=bool(output.full_text))
    except TokenwireError as error:
        if error.reason != "JOURNAL_BEHIND" and not _may_come(run, after, error):
            raise
        if run.handed_over is not None:
            raise detached(run, after) from None
    return None


async def _over(run: Run) -> None:
    """Waits until a run has ended, or goes on elsewhere. No token wakes the task that waits."""
    over = asyncio.get_running_loop().create_future()

    def look() -> None:
        if (run.end is not None or run.handed_over is not None) and not over.done():
            over.set_result(None)

    run.log.listen(look)
    try:
        look()
        await over
    finally:
        run.log.unlisten(look)


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
        metadata={**error.metadata, **place(run, cursor)},
    )
