"""The SDK's objects, put together."""

from collections.abc import Sequence

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from tokenwire.telemetry.exporters import metric_exporter, span_exporter
from tokenwire.telemetry.lean_tracer import LeanTracers
from tokenwire.telemetry.plan import Otlp, Plan
from tokenwire.telemetry.resource import resource
from tokenwire.telemetry.scrape import Scrape
from tokenwire.telemetry.shared_reader import SharedReader, is_shareable
from tokenwire.telemetry.views import CARDINALITY_LIMITS, views


def tracer_provider(target: Otlp, version: str, instance_id: str) -> LeanTracers:
    """Makes the provider of traces, which sends spans in batches from a thread; a full queue drops the oldest."""
    return traced(span_exporter(target), version, instance_id)


def traced(exporter: SpanExporter, version: str, instance_id: str) -> LeanTracers:
    """Makes the provider of traces for an exporter of any kind."""
    provider = TracerProvider(resource=resource(version, instance_id), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return LeanTracers(provider)


def meter_provider(plan: Plan, version: str, instance_id: str) -> tuple[MeterProvider, Scrape | None]:
    """Makes the provider of metrics, and what Prometheus reads if that is planned."""
    exporter = metric_exporter(plan.metrics) if plan.metrics is not None else None
    if exporter is not None and plan.prometheus and is_shareable(exporter):
        shared = SharedReader(exporter)
        return metered([shared], version, instance_id), Scrape(shared.read)
    readers: list[MetricReader] = []
    if exporter is not None:
        readers.append(PeriodicExportingMetricReader(exporter, cardinality_limits=CARDINALITY_LIMITS))
    scrape = Scrape() if plan.prometheus else None
    if scrape is not None:
        readers.append(scrape.reader)
    return metered(readers, version, instance_id), scrape


def metered(readers: Sequence[MetricReader], version: str, instance_id: str) -> MeterProvider:
    """Makes the provider of metrics for readers of any kind."""
    return MeterProvider(
        readers,
        resource(version, instance_id),
        # They would keep the ids of traces for every bucket of every series.
        exemplar_filter=AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
        views=views(),
    )
