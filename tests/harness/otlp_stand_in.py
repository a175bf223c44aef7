"""Speaks OTLP over HTTP and gRPC as a collector does, and keeps what it is told."""

import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class OtlpStandIn:
    """What came.

    Attributes:
        http: the address for OTLP over HTTP.
        grpc: the address for OTLP over gRPC.
        headers: those of each export.
        paths: what each export over HTTP asked for, or "grpc".
        status: the status that exports over HTTP get.
    """

    http: str = ""
    grpc: str = ""
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200

    @property
    def spans(self) -> list[Span]:
        """All spans that came."""
        return [span for _, span in self._spans()]

    @property
    def resources(self) -> list[dict[str, str]]:
        """The attributes of who sent, for each export."""
        resources = [one.resource for request in self.traces for one in request.resource_spans]
        resources += [one.resource for request in self.metrics for one in request.resource_metrics]
        return [attributes(resource) for resource in resources]

    @property
    def instruments(self) -> dict[str, Metric]:
        """The last metric that came of each name."""
        return {
            metric.name: metric
            for request in self.metrics
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def _spans(self) -> Iterator[tuple[Resource, Span]]:
        for request in self.traces:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        yield resource.resource, span

    def take(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        """Takes an export over HTTP and returns the answer."""
        self.paths.append(path)
        self.headers.append(headers)
        if headers.get("content-encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        if path.endswith("traces"):
            self.traces.append(ExportTraceServiceRequest.FromString(body))
            return ExportTraceServiceResponse().SerializeToString()
        self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        return ExportMetricsServiceResponse().SerializeToString()


def attributes(told: Any) -> dict[str, str]:
    """Returns the attributes of a span or a resource that are text."""
    return {one.key: one.value.string_value for one in told.attributes}


@asynccontextmanager
async def otlp_stand_in() -> AsyncIterator[OtlpStandIn]:
    """Listens while the block runs."""
    stand_in = OtlpStandIn()

    async def answer(request: web.BaseRequest) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = stand_in.take(request.path, await request.read(), headers)
        return web.Response(body=body, status=stand_in.status, content_type="application/x-protobuf")

    runner = web.ServerRunner(web.Server(answer))
    server = grpc.aio.server()
    add_TraceServiceServicer_to_server(_Traces(stand_in), server)  # type: ignore[no-untyped-call]
    add_MetricsServiceServicer_to_server(_Metrics(stand_in), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stand_in.http = "http://127.0.0.1:{1}".format(*runner.addresses[0])
        stand_in.grpc = f"http://127.0.0.1:{port}"
        yield stand_in
    finally:
        await runner.cleanup()
        await server.stop(0)


class _Traces:
    def __init__(self, stand_in: OtlpStandIn) -> None:
        self._stand_in = stand_in

    async def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
        _note(self._stand_in, context)
        self._stand_in.traces.append(request)
        return ExportTraceServiceResponse()


class _Metrics:
    def __init__(self, stand_in: OtlpStandIn) -> None:
        self._stand_in = stand_in

    async def Export(self, request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802
        _note(self._stand_in, context)
        self._stand_in.metrics.append(request)
        return ExportMetricsServiceResponse()


def _note(stand_in: OtlpStandIn, context: Any) -> None:
    stand_in.paths.append("grpc")
    stand_in.headers.append({name: str(value) for name, value in context.invocation_metadata()})
