"""Makes spans and metrics of what is told of runs."""

from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, Tracer
from opentelemetry.util.types import AttributeValue

from tokenwire.dispatch.observer import Joining, RunObserver
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Cursor
from tokenwire.domain.request import Submission
from tokenwire.telemetry import names
from tokenwire.telemetry.content import input_content
from tokenwire.telemetry.instruments import Instruments
from tokenwire.telemetry.label_sets import LabelSets
from tokenwire.telemetry.means import Means
from tokenwire.telemetry.propagation import span_context
from tokenwire.telemetry.request import operation_of
from tokenwire.telemetry.run_trace import RunTrace
from tokenwire.telemetry.words import Words, is_reason


class TracingObserver:
    """An Observer: one span for each run, inside the span of the RPC that began it, which it may outlive.

    Args:
        tracer: makes spans.
        instruments: take measurements.
        monotonic: seconds that never go back.
        is_model: whether the fleet has a model of this name.
        capture_content: whether prompts and answers are written into spans.
    """

    def __init__(
        self,
        tracer: Tracer,
        instruments: Instruments,
        monotonic: Callable[[], float],
        is_model: Callable[[str], bool],
        *,
        capture_content: bool = False,
    ) -> None:
        self._running: set[RunTrace] = set()
        models = Words(is_model)
        self._means = Means(
            tracer=tracer,
            instruments=instruments,
            monotonic=monotonic,
            models=models,
            labels=LabelSets(models),
            reasons=Words(is_reason),
            capture_content=capture_content,
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The models that runs have had, as labels."""
        return self._means.models.seen

    def runs(self) -> tuple[RunTrace, ...]:
        """Returns the runs that this process writes now."""
        return tuple(self._running)

    def begins(self, run_id: str, model: str, submission: Submission) -> RunObserver:
        """See Observer."""
        labels = self._means.labels.of_run(operation_of(submission), model)
        span = self._means.tracer.start_span(f"{names.SPAN_RUN} {model}", attributes=labels)
        self._describe(span, submission)
        return RunTrace(self._means, span, labels, self._running)

    def takes_over(self, run: Run) -> RunObserver:
        """See Observer. The trace is a new one: nobody knows whether the old one's parents have been sent."""
        labels = self._means.labels.of_run(operation_of(run.submission), run.model)
        before = span_context(run.traceparent)
        span = self._means.tracer.start_span(
            f"{names.SPAN_RUN} {run.model}",
            context=Context(),
            attributes={**labels, names.RUN_TAKEN_OVER: True},
            links=[Link(before)] if before is not None else None,
        )
        self._describe(span, run.submission)
        told = RunTrace(self._means, span, labels, self._running)
        told.taken_over(run)
        return told

    def joins(self, run: Run, how: Joining, after: Cursor | None) -> None:
        """See Observer. The span of the RPC links to that of the run."""
        self._means.instruments.resumes.add(1, {names.RESUME_KIND: how.value})
        span = trace.get_current_span()
        if not span.is_recording():
            return
        told: dict[str, AttributeValue] = {names.RUN_ID: run.id, names.RESUME_KIND: how.value}
        if after is not None:
            told[names.RESUME_SEQ] = after.seq
        span.set_attributes(told)
        began = span_context(run.traceparent)
        if began is not None:
            span.add_link(began, {names.RUN_ID: run.id})

    def _describe(self, span: Span, submission: Submission) -> None:
        # The rest is told at the end; a run that has ended drops its prompt.
        if self._means.capture_content and span.is_recording():
            span.set_attributes(input_content(submission))
