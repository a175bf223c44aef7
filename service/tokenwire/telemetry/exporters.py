"""The SDK's exporters. They work in threads of their own; the event loop never waits for them."""

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from tokenwire.telemetry.plan import Otlp

# Each protocol brings a library of its own, which is loaded if it is spoken.


def span_exporter(target: Otlp) -> SpanExporter:
    """Makes the exporter of traces."""
    if target.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(endpoint=target.endpoint or None)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp(endpoint=target.endpoint or None)


def metric_exporter(target: Otlp) -> MetricExporter:
    """Makes the exporter of metrics."""
    if target.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

        return OverGrpc(endpoint=target.endpoint or None)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

    return OverHttp(endpoint=target.endpoint or None)
