"""Spans that take little while they are open tell what those of the SDK tell."""

import tracemalloc
from collections.abc import Callable, Mapping
from itertools import count

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    AlwaysRecordSampler,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from tokenwire.telemetry import names
from tokenwire.telemetry.lean_span import LeanSpan
from tokenwire.telemetry.lean_tracer import LeanTracers
from tokenwire.telemetry.sdk import traced

AWAY = SpanContext(7 << 90, 8, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "word")]))


class Counting(IdGenerator):
    """Ids in their order, of traces in all their bits."""

    def __init__(self, random: bool) -> None:
        self._random = random
        self._numbers = count(1)

    def generate_span_id(self) -> int:
        return next(self._numbers)

    def generate_trace_id(self) -> int:
        return next(self._numbers) * 0x9E3779B97F4A7C15

    def is_trace_id_random(self) -> bool:
        return self._random


class Both:
    """The SDK's tracer and ours, with the same sampler and the same ids."""

    def __init__(self, sampler: Sampler = ALWAYS_ON, *, random: bool = True) -> None:
        self._exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
        self._providers = [TracerProvider(sampler, id_generator=Counting(random)) for _ in range(2)]
        for provider, exporter in zip(self._providers, self._exporters, strict=True):
            provider.add_span_processor(SimpleSpanProcessor(exporter))
        theirs, ours = self._providers
        self.lean = LeanTracers(ours)
        self.tracers = [theirs.get_tracer(names.SCOPE, "1"), self.lean.get_tracer(names.SCOPE, "1")]

    def ended(self, use: Callable[[trace.Tracer], None]) -> tuple[ReadableSpan, ...]:
        """Has both used, and returns what ours have told if it is the same."""
        for tracer in self.tracers:
            use(tracer)
        theirs, ours = (exporter.get_finished_spans() for exporter in self._exporters)
        assert encode_spans(ours) == encode_spans(theirs)
        assert [span.to_json() for span in ours] == [span.to_json() for span in theirs]
        for provider in self._providers:
            provider.shutdown()
        return ours


def within(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def use(tracer: trace.Tracer) -> None:
    """Does with a tracer what can be done, at times that are given."""
    first = tracer.start_span("first", context=Context(), start_time=1)
    inside = trace.set_span_in_context(first, Context())
    second = tracer.start_span(
        "second",
        context=inside,
        kind=SpanKind.CLIENT,
        attributes={"one": 1, "text": "a word"},
        links=[Link(AWAY, {"why": "because"})],
        start_time=2,
    )
    second.set_attribute("flag", True)
    second.set_attributes({"share": 0.5, "words": ["longer than", "short"]})
    second.add_link(first.get_span_context())
    second.add_link(trace.INVALID_SPAN_CONTEXT)
    second.set_status(Status(StatusCode.ERROR))
    second.end(5)
    first.update_name("renamed")
    first.set_status(StatusCode.ERROR, "why")
    first.end(6)
    # What comes late changes nothing.
    for late in (first, second):
        late.set_attribute("late", 1)
        late.add_link(AWAY)
        late.set_status(StatusCode.OK)
        late.update_name("late")
        late.end(7)
        assert not late.is_recording()
    tracer.start_span("third", context=within(AWAY), start_time=7).end(8)


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "3"},
        {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4"},
        {"OTEL_SPAN_LINK_COUNT_LIMIT": "1"},
    ],
)
def test_what_is_told_is_what_the_sdk_tells_within_its_limits(
    limits: Mapping[str, str], random: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    spans = Both(random=random).ended(use)
    assert [span.name for span in spans] == ["second", "renamed", "third"]


@pytest.mark.parametrize(
    "sampler",
    [
        ALWAYS_ON,
        ALWAYS_OFF,
        DEFAULT_ON,
        DEFAULT_OFF,
        TraceIdRatioBased(0.5),
        ParentBasedTraceIdRatio(0.5),
        AlwaysRecordSampler(ALWAYS_OFF),
    ],
    ids=lambda one: one.get_description()[:24],
)
@pytest.mark.parametrize("flags", [None, 0, 1, 2, 3])
def test_places_and_decisions_are_those_of_the_sdk(sampler: Sampler, flags: int | None) -> None:
    both = Both(sampler)
    seen: list[list[tuple[SpanContext, bool]]] = []

    def begin(tracer: trace.Tracer) -> None:
        parent = Context() if flags is None else within(SpanContext(1 << 100, 9, True, TraceFlags(flags)))
        found = []
        for _ in range(8):
            one = tracer.start_span("one", context=parent, attributes={"a": 1}, start_time=1)
            child = tracer.start_span("child", context=trace.set_span_in_context(one, Context()), start_time=2)
            found += [(span.get_span_context(), span.is_recording()) for span in (one, child)]
            child.end(3)
            one.end(4)
        seen.append(found)

    both.ended(begin)
    assert seen[0] == seen[1]


def test_the_current_span_is_the_parent_of_what_is_begun_without_one() -> None:
    (_, tracer) = Both().tracers
    outer = tracer.start_span("outer")
    with trace.use_span(outer):
        inner = tracer.start_span("inner")
    assert isinstance(inner, LeanSpan)
    assert inner.parent == outer.get_span_context()


def test_whoever_else_traces_gets_the_sdk_s_spans_with_their_events() -> None:
    both = Both()
    foreign = both.lean.get_tracer("a.library").start_span("theirs")
    assert isinstance(foreign, ReadableSpan)
    with both.tracers[1].start_as_current_span("a block") as span:
        span.add_event("something")
        assert isinstance(span, ReadableSpan)
        assert len(span.events) == 1


def test_no_event_is_told_and_of_an_exception_nothing() -> None:
    (_, tracer) = Both().tracers
    span = tracer.start_span("one")
    span.add_event("something")
    with pytest.raises(ValueError, match="secret"), trace.use_span(span, set_status_on_exception=False):
        raise ValueError("secret")
    assert isinstance(span, LeanSpan)
    assert (span.attributes, span.status.status_code) == ({}, StatusCode.UNSET)


def test_an_open_span_takes_a_fourth_of_what_the_sdk_s_takes() -> None:
    sizes = []
    for tracer in Both().tracers:
        shared = {"one": 1, "two": 2}
        tracer.start_span("warm", attributes=shared).end()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        held = [tracer.start_span("one", attributes=shared) for _ in range(200)]
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        sizes.append((after - before) / len(held))
    assert sizes[1] < sizes[0] / 4


def test_a_span_that_has_ended_keeps_nothing_of_what_it_told() -> None:
    (_, tracer) = Both().tracers
    span = tracer.start_span("one", attributes={"one": 1}, links=[Link(AWAY)])
    span.end()
    assert isinstance(span, LeanSpan)
    assert (dict(span.attributes), span.links) == ({}, ())


def test_what_a_server_exports_is_made_of_them() -> None:
    exporter = InMemorySpanExporter()
    provider = traced(exporter, "1.2.3", "id")
    span = provider.get_tracer(names.SCOPE).start_span("one")
    assert isinstance(span, LeanSpan)
    span.end()
    provider.shutdown()
    (told,) = exporter.get_finished_spans()
    assert told.resource.attributes["service.version"] == "1.2.3"
    assert told.instrumentation_scope is not None
    assert told.instrumentation_scope.name == names.SCOPE
