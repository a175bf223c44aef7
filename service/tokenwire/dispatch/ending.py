"""The `end` event of a run: reasons, usage, timings, error."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from operator import sub

from tokenwire.dispatch.run import Run, StopCause
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import ChoiceEnd, End, FinishReason, RunError, Timings, Usage

_STOP_REASONS = {
    StopCause.CANCEL: FinishReason.CANCELLED,
    StopCause.TIME_LIMIT: FinishReason.TIME_LIMIT,
    StopCause.ORPHANED: FinishReason.ERROR,
    StopCause.SHUTDOWN: FinishReason.ERROR,
    StopCause.JOURNAL: FinishReason.ERROR,
}


def end_of(run: Run, error: RunError | None) -> End:
    """Builds a run's end; `error` is why it failed, None if it did not. Choices that had not ended get the cause."""
    reason = _STOP_REASONS[run.stopped] if run.stopped and not error else FinishReason.ERROR
    for choice in range(run.submission.n):
        run.writer.finish(choice, reason)
    usage = run.writer.usage()
    return End(
        choices=tuple(run.log.choice_ends[choice] for choice in range(run.submission.n)),
        usage=usage,
        timings=_timings(run, usage),
        channels=run.log.channel_ends(),
        error=error,
    )


def cancelled_in_advance() -> End:
    """Builds the end of a run that was cancelled before it was asked for."""
    return End(
        choices=(ChoiceEnd(choice=0, finish_reason=FinishReason.CANCELLED),),
        usage=Usage(),
        timings=Timings(),
        channels=(),
    )


def failure(error: TokenwireError, *, wrote_text: bool, constrained: bool = True) -> RunError:
    """Turns an engine's failure into the run's error: once there is text, the run's loss is DATA_LOSS.

    Args:
        error: the failure.
        wrote_text: whether there is text.
        constrained: whether the request has a constraint; an engine does not say what it made a bad grammar of.
    """
    blamed = "constraint" if constrained else "tools"
    violations = tuple(replace(one, field=blamed) if one.field == "constraint" else one for one in error.violations)
    lost = wrote_text and error.code is not Code.INTERNAL
    return RunError(
        code=Code.DATA_LOSS if lost else error.code,
        reason=error.reason,
        message=error.message,
        retryable=error.retryable or lost,
        retry_after=error.retry_after,
        violations=violations,
        resource=error.resource,
        metadata=error.metadata,
    )


def stopped_error(cause: StopCause, *, wrote_text: bool) -> RunError | None:
    """Returns the error of a run that the server ended, or None if that ending is not an error."""
    if cause is StopCause.ORPHANED:
        return RunError(
            code=Code.ABORTED, reason="ORPHANED", message="the run ended because nobody read it", retryable=True
        )
    if cause is StopCause.SHUTDOWN:
        return RunError(
            code=Code.DATA_LOSS if wrote_text else Code.UNAVAILABLE,
            reason="SHUTTING_DOWN",
            message="the server shut down before the run ended",
            retryable=True,
            retry_after=1.0,
        )
    if cause is StopCause.JOURNAL:
        return RunError(
            code=Code.DATA_LOSS if wrote_text else Code.UNAVAILABLE,
            reason="JOURNAL_UNAVAILABLE",
            message="the journal could not be written, and the run was not to go on without it",
            retryable=True,
            retry_after=1.0,
        )
    return None


def _timings(run: Run, usage: Usage) -> Timings:
    completed = run.elapsed_ms()
    firsts = [log.at_ms[0] for log in run.log.channels]
    if not firsts:
        return Timings(scheduled_ms=run.scheduled_ms, completed_ms=completed)
    first, last = min(firsts), max(log.at_ms[-1] for log in run.log.channels)
    gaps: Counter[int] = Counter()
    means: list[float] = []
    for choice in {log.channel.choice for log in run.log.channels}:
        logs = [log for log in run.log.channels if log.channel.choice == choice]
        times: Sequence[int] = logs[0].at_ms if len(logs) == 1 else sorted(chain(*(log.at_ms for log in logs)))
        # Counted in C: an answer may have a million tokens, and the event loop waits.
        gaps.update(map(sub, islice(times, 1, None), times))
        tokens = sum(log.tokens[-1] for log in logs) or len(times)
        if tokens > 1:
            means.append((times[-1] - times[0]) / (tokens - 1))
    output = usage.output_tokens
    waited = (run.accepted_at - run.received_at) * 1000
    return Timings(
        scheduled_ms=run.scheduled_ms,
        first_token_ms=first,
        completed_ms=completed,
        time_to_first_token_ms=first + max(0, int(waited)),
        mean_time_between_tokens_ms=round(sum(means) / len(means), 3) if means else 0.0,
        p99_time_between_tokens_ms=_percentile(gaps, 0.99),
        tokens_per_second=round(output * 1000 / (last - first), 2) if last > first else 0.0,
    )


def _percentile(counts: Counter[int], share: float) -> float:
    """Returns the nearest rank: the smallest value that this share of all values does not exceed; 0 for none."""
    rank = math.ceil(share * counts.total())
    for value in sorted(counts):
        rank -= counts[value]
        if rank <= 0:
            return float(value)
    return 0.0
