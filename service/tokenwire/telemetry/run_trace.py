"""One run in traces and metrics, as long as this process writes it."""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span
from opentelemetry.util.types import AttributeValue

from tokenwire.dispatch.observer import AttemptObserver
from tokenwire.dispatch.run import Run, StopCause, last_ms
from tokenwire.domain.events import Continuation, End
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine
from tokenwire.telemetry import names
from tokenwire.telemetry.attempt_trace import AttemptTrace
from tokenwire.telemetry.content import finish_reason, output_content
from tokenwire.telemetry.instruments import Labels
from tokenwire.telemetry.means import Means, failed
from tokenwire.telemetry.propagation import traceparent
from tokenwire.telemetry.request import usage_attributes

# Nobody waited for it any more: the client's doing, like a cancel, and no failure.
_ORPHANED = "ORPHANED"


class RunTrace:
    """A run's span and the spans in it. It is the run's RunObserver.

    Args:
        means: what it is made with.
        span: the run's span.
        labels: those of the run's metrics.
        running: has the run from its acceptance to its end.

    Attributes:
        run: the run, from its acceptance to its end.
        attempt_now: the attempt under way.
        labels: those of the run's metrics.
    """

    __slots__ = (
        "_means",
        "_queue_span",
        "_queued_at",
        "_quiet_cause",
        "_quiet_since_ms",
        "_running",
        "_span",
        "attempt_now",
        "labels",
        "run",
    )

    def __init__(self, means: Means, span: Span, labels: Labels, running: "set[RunTrace]") -> None:
        self.run: Run | None = None
        self.attempt_now: AttemptTrace | None = None
        self.labels = labels
        self._means = means
        self._span = span
        self._running = running
        self._queued_at: float | None = None
        self._queue_span: Span | None = None
        # When the last event before a fault was written, in milliseconds since the run was accepted.
        self._quiet_since_ms: int | None = None
        self._quiet_cause = "engine"

    @property
    def traceparent(self) -> str:
        """See RunObserver."""
        return traceparent(self._span.get_span_context())

    @property
    def context(self) -> Context:
        """What the run's children are made in."""
        return trace.set_span_in_context(self._span, Context())

    @property
    def waits(self) -> bool:
        """Whether the run waits for a place on an engine."""
        return self._queued_at is not None

    def accepted(self, run: Run) -> None:
        """See RunObserver."""
        self.run = run
        self._running.add(self)

    def taken_over(self, run: Run) -> None:
        """Says that readers have seen nothing new since another process lost the run."""
        self._quiet_since_ms = last_ms(run.log)
        self._quiet_cause = "takeover"

    def queued(self) -> None:
        """See RunObserver."""
        self._queued_at = self._means.monotonic()
        if self._span.is_recording():
            attempt = self.run.attempt + 1 if self.run is not None else 1
            self._queue_span = self._means.tracer.start_span(
                names.SPAN_QUEUE, context=self.context, attributes={names.ATTEMPT: attempt}
            )

    def seated(self, engine: Engine | None) -> None:
        """See RunObserver."""
        waited = 0.0 if self._queued_at is None else self._means.monotonic() - self._queued_at
        outcome = "left" if engine is None else "seated"
        model = self.labels[names.REQUEST_MODEL]
        labels = {names.REQUEST_MODEL: model, names.QUEUE_OUTCOME: outcome}
        self._means.instruments.queue_wait.record(waited, labels)
        self._queued_at = None
        span, self._queue_span = self._queue_span, None
        if span is not None:
            told: dict[str, AttributeValue] = {names.QUEUE_OUTCOME: outcome}
            if engine is not None:
                told[names.ENGINE] = engine.name
            span.set_attributes(told)
            span.end()

    def attempt(
        self, engine: Engine, by: Continuation, submission: Submission, prompt_tokens: int | None, *, streamed: bool
    ) -> AttemptObserver:
        """See RunObserver."""
        assert self.run is not None, "a run is accepted before its first attempt"
        told = AttemptTrace(self._means, self, self.run, engine, by, submission, prompt_tokens, streamed=streamed)
        self.attempt_now = told
        return told

    def attempt_failed(self) -> None:
        """Notes since when readers see nothing new; a second failure in a row changes nothing of it."""
        if self._quiet_since_ms is None and self.run is not None:
            self._quiet_since_ms, self._quiet_cause = last_ms(self.run.log), "engine"

    def goes_on(self, by: Continuation) -> float | None:
        """Says that there is text again. Returns how long there was none because of a fault, in seconds."""
        if self._quiet_since_ms is None or self.run is None:
            return None
        seconds = max(0, self.run.elapsed_ms() - self._quiet_since_ms) / 1000
        self._quiet_since_ms = None
        self._means.instruments.reader_pause.record(
            seconds, {names.CONTINUATION: by.name.lower(), names.PAUSE_CAUSE: self._quiet_cause}
        )
        return seconds

    def ended(self) -> None:
        """See RunObserver."""
        run = self.run
        if run is None or self not in self._running:
            return
        self._running.discard(self)
        last = run.log.markers[-1].marker if run.log.markers else None
        end = last if isinstance(last, End) else None
        outcome = _outcome(run, end)
        if end is not None:
            self._measure(run, end)
        if self._span.is_recording():
            told = _described(run, outcome)
            if end is not None:
                told |= _told(end)
                if self._means.capture_content:
                    told |= output_content(run.log, end.choices)
            self._span.set_attributes(told)
            if end is not None and end.error is not None and end.error.reason != _ORPHANED:
                failed(self._span, end.error.reason)
        self._span.end()
        # The run is kept for its retention, and so is whoever observed it.
        self.run, self._span = None, INVALID_SPAN

    def _measure(self, run: Run, end: End) -> None:
        seconds = self._means.monotonic() - run.received_at
        instruments, labels = self._means.instruments, self.labels
        if end.error is not None:
            reason = self._means.reasons.label(end.error.reason)
            instruments.server_duration.record(seconds, {**labels, names.ERROR_TYPE: reason})
            return
        instruments.server_duration.record(seconds, labels)
        first, tokens = end.timings.time_to_first_token_ms / 1000, end.usage.output_tokens
        if not end.channels or run.stopped is not None:
            # Whoever stops a run before its time makes it neither fast nor slow.
            return
        instruments.server_first_token.record(first, labels)
        if tokens > 1:
            instruments.server_per_token.record(max(0.0, seconds - first) / (tokens - 1), labels)


def _described(run: Run, outcome: str) -> dict[str, AttributeValue]:
    told: dict[str, AttributeValue] = {
        # Of a model that is no label.
        names.REQUEST_MODEL: run.model,
        names.RESPONSE_ID: run.id,
        names.RUN_ID: run.id,
        names.RUN_OUTCOME: outcome,
        names.RUN_ATTEMPTS: run.attempt,
    }
    if run.request_id:
        told[names.REQUEST_ID] = run.request_id
    if run.submission.run.detached:
        told[names.RUN_DETACHED] = True
    return told


def _outcome(run: Run, end: End | None) -> str:
    if end is None:
        return "handed_over"
    if end.error is not None:
        return "orphaned" if end.error.reason == _ORPHANED else "failed"
    if run.stopped in (StopCause.CANCEL, StopCause.TIME_LIMIT):
        return run.stopped.name.lower()
    return "completed"


def _told(end: End) -> dict[str, AttributeValue]:
    told: dict[str, AttributeValue] = {
        names.RESPONSE_FINISH_REASONS: tuple(finish_reason(one) for one in end.choices),
        **usage_attributes(end.usage),
    }
    if end.channels:
        told[names.RUN_FIRST_TOKEN] = end.timings.time_to_first_token_ms / 1000
        told[names.RUN_PER_TOKEN] = end.timings.mean_time_between_tokens_ms / 1000
    return told
