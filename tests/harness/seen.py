"""What a server logs, traces and measures."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import structlog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from harness.waiting import until
from tokenwire.telemetry.lean_tracer import LeanTracers

# A point of a histogram or of a number: which one, whoever asks for it knows.
Point = Any
STREAM = "tokenwire.v1.GenerateService/StreamGenerate"


@dataclass(frozen=True)
class Seen:
    """All of it, of every server that was built while it was watched."""

    logged: list[Any]
    exporter: InMemorySpanExporter
    tracers: LeanTracers
    reader: InMemoryMetricReader
    meters: MeterProvider

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The line of each RPC."""
        return [dict(entry) for entry in self.logged if entry["event"] == "rpc"]

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended, in the order of their ends."""
        return self.exporter.get_finished_spans()

    def named(self, start: str) -> list[ReadableSpan]:
        """Returns the spans whose names begin so, in the order of their beginnings."""
        return sorted((one for one in self.spans if one.name.startswith(start)), key=lambda one: one.start_time or 0)

    async def ended(self, count: int) -> tuple[ReadableSpan, ...]:
        """Waits until so many spans have ended, which must be all."""
        await until(lambda: len(self.spans) >= count, f"{count} spans")
        assert len(self.spans) == count, [span.name for span in self.spans]
        return self.spans

    async def one(self) -> tuple[dict[str, Any], ReadableSpan]:
        """Waits for the one line and the one span that there must be."""
        await until(lambda: bool(self.spans), "the span has ended")
        assert len(self.lines) == 1
        assert len(self.spans) == 1
        return self.lines[0], self.spans[0]

    def points(self, name: str) -> list[Point]:
        """Collects, and returns the series of one instrument."""
        return self.measured().get(name, [])

    def measured(self) -> Mapping[str, list[Point]]:
        """Collects, and returns the series of each instrument."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        found: dict[str, list[Point]] = {}
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found


@contextmanager
def seen(sampler: Sampler = ALWAYS_ON) -> Iterator[Seen]:
    """Watches while the block runs."""
    provider, exporter = TracerProvider(sampler), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracers = LeanTracers(provider)
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    with (
        structlog.testing.capture_logs() as logged,
        patch("tokenwire.app.trace.get_tracer", tracers.get_tracer),
        patch("tokenwire.app.metrics.get_meter", meters.get_meter),
    ):
        yield Seen(logged, exporter, tracers, reader, meters)
    tracers.shutdown()
    meters.shutdown()


def said(span: ReadableSpan) -> dict[str, Any]:
    """Returns a span's attributes."""
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int | None:
    """Returns the id of a span's parent."""
    return span.parent.span_id if span.parent is not None else None


def id_of(span: ReadableSpan) -> int:
    """Returns a span's id."""
    assert span.context is not None
    found: int = span.context.span_id
    return found


def linked(span: ReadableSpan) -> list[int]:
    """Returns the ids of the spans that a span is linked to."""
    return [link.context.span_id for link in span.links]


async def tree(watched: Seen, count: int, rpc: str = STREAM) -> tuple[ReadableSpan, ReadableSpan, list[ReadableSpan]]:
    """Waits for so many spans, and returns the RPC, its run and what is in the run; checks that they hang together."""
    await watched.ended(count)
    (call,), (run,) = watched.named(rpc), watched.named("run ")
    inside = [span for span in watched.spans if parent_of(span) == id_of(run)]
    assert parent_of(run) == id_of(call)
    assert {span.context.trace_id for span in watched.spans if span.context} == {call.context.trace_id}
    return call, run, sorted(inside, key=lambda one: one.start_time or 0)
