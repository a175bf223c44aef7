"""Traces across processes: W3C's traceparent and tracestate, in from a client and out to an engine.

Baggage is neither read nor sent: what a client puts there is nobody else's business.
"""

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PARENT = "traceparent"
STATE = "tracestate"

_propagator = TraceContextTextMapPropagator()


def remote_context(metadata: Mapping[str, str]) -> Context:
    """Returns the context that a client's metadata asks to go on with; an empty one if they do not, or not well."""
    return _propagator.extract(metadata, Context()) if PARENT in metadata else Context()


def traceparent(span: SpanContext) -> str:
    """Returns a span's place in its trace as one word; empty if it has none."""
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def headers(span: SpanContext) -> Mapping[str, str]:
    """Returns the headers that let another process go on with the trace under this span."""
    if not span.is_valid:
        return {}
    sent = {PARENT: traceparent(span)}
    if span.trace_state:
        sent[STATE] = span.trace_state.to_header()
    return sent


def span_context(word: str) -> SpanContext | None:
    """Reads what `traceparent` returned; None if it is empty or nonsense."""
    found = trace.get_current_span(_propagator.extract({PARENT: word}, Context())).get_span_context()
    return found if found.is_valid else None
