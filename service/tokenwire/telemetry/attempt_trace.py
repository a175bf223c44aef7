"""One attempt of a run in traces and metrics: a call of the engine."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from tokenwire.dispatch.run import Run
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.events import Continuation, Usage
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine
from tokenwire.telemetry import names
from tokenwire.telemetry.content import finish_reason
from tokenwire.telemetry.means import Means, failed
from tokenwire.telemetry.propagation import headers
from tokenwire.telemetry.request import request_attributes, usage_attributes

if TYPE_CHECKING:
    from tokenwire.telemetry.run_trace import RunTrace

# Kinds of engines that are part of this server; what they do is no call of another one.
_OWN_KINDS = frozenset({"llamacpp", "scripted"})
_BUG = "INTERNAL"


class AttemptTrace:
    """An attempt's span. It is the attempt's AttemptObserver; arguments as those of RunObserver.attempt.

    Attributes:
        engine: the engine's name.
    """

    __slots__ = (
        "_began",
        "_by",
        "_first",
        "_first_ms",
        "_labels",
        "_means",
        "_number",
        "_pause",
        "_pieces",
        "_prompt_tokens",
        "_run",
        "_span",
        "_streamed",
        "_submission",
        "_told",
        "_written",
        "engine",
    )

    def __init__(
        self,
        means: Means,
        told: "RunTrace",
        run: Run,
        engine: Engine,
        by: Continuation,
        submission: Submission,
        prompt_tokens: int | None,
        *,
        streamed: bool,
    ) -> None:
        self.engine = engine.name
        self._means = means
        self._told = told
        self._run = run
        self._by = by
        self._prompt_tokens = prompt_tokens
        self._streamed = streamed
        self._began = 0.0
        self._first: float | None = None
        self._first_ms = 0
        self._written = 0
        self._pieces = 0
        self._pause: float | None = None
        self._submission = submission
        self._labels = means.labels.of_attempt(told.labels, engine.kind, engine.name)
        self._number = run.attempt + 1
        if self._number > 1:
            means.instruments.failovers.add(1, {names.CONTINUATION: by.name.lower(), names.ENGINE: engine.name})
        self._span = means.tracer.start_span(
            f"{self._labels[names.OPERATION]} {run.model}",
            context=told.context,
            kind=SpanKind.INTERNAL if engine.kind in _OWN_KINDS else SpanKind.CLIENT,
            attributes=self._labels,
        )

    @property
    def headers(self) -> Mapping[str, str]:
        """See AttemptObserver."""
        return headers(self._span.get_span_context())

    def first_token(self) -> None:
        """See AttemptObserver."""
        if self._first is not None:
            return
        self._first = self._means.monotonic() - self._began
        self._first_ms = self._run.elapsed_ms()
        self._pause = self._told.goes_on(self._by)
        if self._streamed:
            self._means.instruments.client_first_chunk.record(self._first, self._labels)

    def __enter__(self) -> Self:
        self._began = self._means.monotonic()
        self._written = self._run.writer.output_tokens
        self._pieces = _pieces(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._told.attempt_now = None
        outcome, reason = self._ending(error)
        if outcome == "failed":
            self._told.attempt_failed()
        used = self._used() if self._first is not None else None
        self._measure(outcome, reason, used)
        if self._span.is_recording():
            self._describe(outcome, reason, used)
        self._span.end()

    def _ending(self, error: BaseException | None) -> tuple[str, str]:
        if error is None:
            return "completed", ""
        if self._run.stopped is not None or not isinstance(error, Exception):
            # Whatever an engine does while it is stopped.
            return "stopped", ""
        return "failed", error.reason if isinstance(error, TokenwireError) else _BUG

    def _used(self) -> Usage:
        """Returns what this attempt alone has read and written, as far as that is known."""
        usage = self._run.writer.usage()
        written = max(0, usage.output_tokens - self._written)
        if self._by is not Continuation.FIRST:
            return Usage(prompt_tokens=self._prompt_tokens or 0, output_tokens=written)
        return Usage(
            prompt_tokens=usage.prompt_tokens or self._prompt_tokens or 0,
            cached_tokens=usage.cached_tokens,
            output_tokens=written,
            reasoning_tokens=usage.reasoning_tokens,
        )

    def _measure(self, outcome: str, reason: str, used: Usage | None) -> None:
        instruments, labels = self._means.instruments, {**self._labels, names.ATTEMPT_OUTCOME: outcome}
        if reason:
            labels[names.ERROR_TYPE] = self._means.reasons.label(reason)
        instruments.client_duration.record(self._means.monotonic() - self._began, labels)
        if used is None:
            return
        instruments.client_tokens.record(
            self._labels,
            read=used.prompt_tokens,
            cached=used.cached_tokens,
            written=used.output_tokens,
            reasoning=used.reasoning_tokens,
        )
        pieces = _pieces(self._run) - self._pieces
        if self._streamed and pieces > 1:
            last_ms = max(one.at_ms[-1] for one in self._run.log.channels)
            mean = max(0, last_ms - self._first_ms) / 1000 / (pieces - 1)
            instruments.client_per_chunk.record(mean, self._labels)

    def _describe(self, outcome: str, reason: str, used: Usage | None) -> None:
        run = self._run
        told: dict[str, AttributeValue] = {
            # Of a model that is no label.
            names.REQUEST_MODEL: run.model,
            names.REQUEST_STREAM: self._streamed,
            names.RUN_ID: run.id,
            names.ATTEMPT: self._number,
            names.CONTINUATION: self._by.name.lower(),
            names.ATTEMPT_OUTCOME: outcome,
        }
        told |= request_attributes(self._submission, content=self._means.capture_content)
        if self._pause is not None:
            told[names.PAUSE] = self._pause
        if run.stopped is not None and outcome == "stopped":
            told[names.STOP_CAUSE] = run.stopped.name.lower()
        if used is not None and self._first is not None:
            told[names.RESPONSE_MODEL] = run.model
            told[names.RESPONSE_FIRST_CHUNK] = self._first
            told |= usage_attributes(used)
        if run.writer.ends:
            ends = sorted(run.writer.ends.items())
            told[names.RESPONSE_FINISH_REASONS] = tuple(finish_reason(one) for _, one in ends)
        self._span.set_attributes(told)
        if reason:
            failed(self._span, reason)


def _pieces(run: Run) -> int:
    return sum(len(channel.seqs) for channel in run.log.channels)
