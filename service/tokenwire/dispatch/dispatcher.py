"""Lets an engine write a run."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace

import structlog

from tokenwire.dispatch.ending import end_of, failure, stopped_error
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.watchdog import Watchdog
from tokenwire.domain.errors import Code, EngineError, TokenwireError
from tokenwire.domain.events import Continuation, Dispatched, RunError
from tokenwire.domain.generation import Job, Piece, Prompt
from tokenwire.domain.request import Submission, engine_fields
from tokenwire.engines.engine import Engine
from tokenwire.journal.journal import Journal

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an engine may be silent, in seconds, where a request does not say."""

    first_token: float
    stall: float


class Dispatcher:
    """Hands a run to its engine, writes what comes, and writes the run's end, whatever happens."""

    def __init__(self, fleet: Fleet, journal: Journal, patience: Patience) -> None:
        self._fleet = fleet
        self._journal = journal
        self._patience = patience

    async def execute(self, run: Run) -> None:
        """Brings a run to its end. Returns when the engine has stopped and `end` is written."""
        error: RunError | None = None
        try:
            run.begun = True
            if run.stopped is not None:
                raise asyncio.CancelledError
            assert run.engine is not None
            with self._fleet.running(run.engine):
                await self._attempt(run, run.engine)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if run.stopped is None or task is None:
                error = _INTERNAL
                raise
            task.uncancel()
        except TokenwireError as caught:
            constrained = run.submission.constraint is not None
            error = failure(caught, wrote_text=run.writer.wrote_text, constrained=constrained)
        except Exception:
            _log.exception("run failed by a bug", run_id=run.id)
            error = _INTERNAL
        finally:
            if run.stopped is not None:
                # Whatever an engine does while it is being stopped, this is why the run ends.
                error = stopped_error(run.stopped, wrote_text=run.writer.wrote_text)
            run.log.append(end_of(run, error), run.elapsed_ms())

    async def _attempt(self, run: Run, engine: Engine) -> None:
        run.attempt += 1
        run.scheduled_ms = run.elapsed_ms()
        run.log.append(
            Dispatched(engine=engine.name, attempt=run.attempt, continuation=Continuation.FIRST), run.scheduled_ms
        )
        limits, writer, log = run.submission.limits, run.writer, run.log
        writer.window = engine.status.model(run.model).context_window
        submission = _with_limit(run.submission, run.prompt, engine.default_max_tokens, writer.window)
        job = Job(run_id=run.id, model=run.model, submission=submission, prompt=run.prompt)
        first_token = limits.first_token_timeout or self._patience.first_token
        if limits.first_token_timeout is None and _answers_whole(engine, submission):
            first_token = _UNBOUNDED_SECONDS
        stall = limits.stall_timeout or self._patience.stall
        waiting = True
        async with aclosing(engine.generate(job)) as batches:
            # Inside: an engine that takes its time to close has answered all the same.
            with Watchdog(first_token, _no_first_token) as watchdog:
                async for batch in batches:
                    if not waiting:
                        watchdog.feed()
                    elif any(type(item) is Piece for item in batch):
                        waiting = False
                        watchdog.watch_for(stall, _stalled)
                    writer.write(batch, run.attempt)
                    if log.size > run.share:
                        self._journal.extend(run.id, 2 * run.share)
                        run.share *= 2
                    if writer.overrun and writer.done:
                        break
        if not writer.done:
            raise EngineError(
                Code.UNAVAILABLE,
                "ENGINE_LOST",
                "the engine's stream ended in the middle",
                retryable=True,
                retry_after=1.0,
            )


_INTERNAL = RunError(code=Code.INTERNAL, reason="INTERNAL", message="internal error")


# Of an answer that comes as a whole the run's own limit is the bound.
_UNBOUNDED_SECONDS = 30 * 86_400.0


def _answers_whole(engine: Engine, submission: Submission) -> bool:
    cells = (engine.fields.get(path) for path in engine_fields(submission))
    return any(cell is not None and cell.unary_only for cell in cells)


def _with_limit(submission: Submission, prompt: Prompt, default: int | None, window: int | None) -> Submission:
    """Gives the request the engine's default for its tokens, and no more than the window has room for.

    Of a limit beyond the window some engines make an error, others less in silence; so none of them sees one.
    """
    asked = submission.stopping.max_tokens
    limit = default if asked is None else asked
    if limit is not None and window is not None and prompt.tokens is not None:
        limit = max(1, min(limit, window - prompt.tokens))
    if limit == asked:
        return submission
    return replace(submission, stopping=replace(submission.stopping, max_tokens=limit))


def _no_first_token() -> TokenwireError:
    return EngineError(
        Code.DEADLINE_EXCEEDED, "FIRST_TOKEN_TIMEOUT", "the engine gave no token within the limit", retryable=True
    )


def _stalled() -> TokenwireError:
    return EngineError(
        Code.UNAVAILABLE, "ENGINE_STALLED", "the engine fell silent in the middle of its answer", retryable=True
    )
