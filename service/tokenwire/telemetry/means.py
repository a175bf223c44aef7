"""What the spans and metrics of runs are made with."""

from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.trace import Span, Status, StatusCode, Tracer

from tokenwire.telemetry import names
from tokenwire.telemetry.instruments import Instruments
from tokenwire.telemetry.label_sets import LabelSets
from tokenwire.telemetry.words import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Shared by all runs.

    Attributes:
        tracer: makes spans.
        instruments: take measurements.
        monotonic: seconds that never go back.
        models: the models of the fleet, as labels.
        labels: those of runs and attempts.
        reasons: why something failed, as labels.
        capture_content: whether prompts and answers are written into spans.
    """

    tracer: Tracer
    instruments: Instruments
    monotonic: Callable[[], float]
    models: Words
    labels: LabelSets
    reasons: Words
    capture_content: bool


def failed(span: Span, reason: str) -> None:
    """Marks a span as that of a failure; no text of an error is ever told, as it may hold anything."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute(names.ERROR_TYPE, reason)
