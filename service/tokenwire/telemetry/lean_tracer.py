"""Makes spans that take little while they are open, with the SDK's sampler, ids, limits and processors."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider as SdkProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import Attributes, AttributeValue

from tokenwire.telemetry import names
from tokenwire.telemetry.lean_span import Ends, LeanSpan


class LeanTracers(trace.TracerProvider):
    """The SDK's provider with a tracer of ours for our own spans; whoever else asks gets the SDK's.

    Args:
        provider: samples, makes ids, and has the processors.
    """

    def __init__(self, provider: SdkProvider) -> None:
        self._provider = provider

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """Returns a tracer."""
        found = self._provider.get_tracer(
            instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        )
        if instrumenting_module_name != names.SCOPE or not isinstance(found, SdkTracer):
            return found
        scope = InstrumentationScope(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        return LeanTracer(found, Ends(found.resource, scope, SpanLimits(), found.span_processor.on_end))

    def shutdown(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


class LeanTracer(trace.Tracer):
    """Makes spans as the SDK's tracer does.

    Args:
        tracer: samples and makes ids.
        ends: takes the spans that have ended.
    """

    def __init__(self, tracer: SdkTracer, ends: Ends) -> None:
        self._tracer = tracer
        self._ends = ends
        self._sampler, self._ids = tracer.sampler, tracer.id_generator

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Starts a span, or one that records nothing if the sampler says so."""
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid:
            trace_id, flags = parent.trace_id, parent.trace_flags & TraceFlags.RANDOM_TRACE_ID
        else:
            trace_id = self._ids.generate_trace_id()
            flags = TraceFlags.RANDOM_TRACE_ID if self._ids.is_trace_id_random() else TraceFlags.DEFAULT
        found = self._sampler.should_sample(context, trace_id, name, kind, attributes, links or ())
        if found.decision is Decision.RECORD_AND_SAMPLE:
            flags |= TraceFlags.SAMPLED
        place = SpanContext(
            trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=_FLAGS[flags],
            trace_state=found.trace_state,
        )
        if found.decision is Decision.DROP:
            return NonRecordingSpan(place)
        # A sampler may add some; ours are values that need no cleaning.
        told = cast("Mapping[str, AttributeValue]", found.attributes)
        started = self._ends.now() if start_time is None else start_time
        return LeanSpan(self._ends, name, place, parent if parent.is_valid else None, kind, told, links or (), started)

    def start_as_current_span(self, name: str, *args: Any, **options: Any) -> Any:
        """Starts a span of the SDK for a block: what happens there may have to be told by events."""
        return self._tracer.start_as_current_span(name, *args, **options)


# Sampled or not, of a random trace id or not.
_FLAGS = tuple(TraceFlags(flags) for flags in range(4))
