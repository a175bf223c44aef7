"""Traces: sent by OTLP over HTTP if an endpoint is set, else not made."""

from collections.abc import Iterator
from contextlib import contextmanager

from tokenwire.telemetry import names

PATH = "/v1/traces"


@contextmanager
def tracing(endpoint: str, version: str) -> Iterator[None]:
    """Exports spans while the block runs, and sends the last ones when it ends. An empty endpoint exports nothing.

    Samplers, headers, further attributes and the service's name are read by the SDK from its own variables.
    """
    if not endpoint:
        yield
        return
    # A server without traces need not load the SDK.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What is given to `create` would win over OTEL_SERVICE_NAME.
    ours = Resource.create({names.SERVICE_NAME: "tokenwire", names.SERVICE_VERSION: version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + PATH)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
