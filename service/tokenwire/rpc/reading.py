"""Streams a run's view into a call, or waits for its answer."""

import json

from tokenwire.delivery.collect import Collector
from tokenwire.delivery.view import View
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.cursor import START, Cursor
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.events import Envelope, Phase, Progress, RunError
from tokenwire.domain.generation import PrefillProgress
from tokenwire.rpc.results import to_result
from tokenwire.transport.call import Call
from tokenwire.v1 import run_pb2


class Reader:
    """Reads runs for RPCs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def stream(self, run: Run, after: Cursor | None, call: Call) -> None:
        """Writes the run's events after a cursor until its end. Raises the run's error after `end`."""
        output = run.submission.output
        view = View(
            run.log,
            after or START,
            call.delivery,
            token_ids=bool(output.token_ids),
            full_text=bool(output.full_text),
        )
        told: PrefillProgress | None = None
        with self._runs.reading(run):
            while True:
                for envelope in view.take():
                    await call.write(envelope)
                if view.ended:
                    break
                # What was appended while we wrote is there already.
                if view.behind:
                    continue
                prefill = run.writer.prefill
                if prefill is not None and prefill is not told:
                    told = prefill
                    await call.write(Envelope(_prefill(prefill), view.cursor, run.elapsed_ms()))
                else:
                    await run.log.changed()
        _raise(run, view.cursor)

    async def result(self, run: Run) -> run_pb2.RunResult:
        """Waits for the run's end and returns its whole answer. Raises the run's error."""
        with self._runs.reading(run):
            await run.finished()
            view = View(run.log, token_ids=bool(run.submission.output.token_ids))
            collector = Collector()
            collector.add(view.take())
        _raise(run, view.cursor)
        return to_result(run, collector)


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
        metadata={**error.metadata, "run_id": run.id, "cursor": json.dumps({"seq": cursor.seq})},
    )
