"""A server exports to a collector by the standard variables: to a real one where it is built, else to a stand-in."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.command_line import begun, outcome
from harness.otlp_stand_in import OtlpStandIn, attributes, otlp_stand_in
from harness.reading import text_of
from harness.waiting import until
from tokenwire.telemetry import names
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.sampling_pb2 import Stopping

OTELCOL = Path(__file__).parents[2] / ".cache" / "bench" / "bin" / "otelcol"
SERVE = ("serve", "--engine", "scripted", "--listen", "127.0.0.1:0", "--drain-seconds", "1", "--log-level", "warning")
STREAMS = 30
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
PROMPT = "my-secret-prompt"

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  debug: {{verbosity: detailed, use_internal_logger: false}}
  otlp_http: {{endpoint: "{next}", compression: none, sending_queue: {{enabled: false}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [debug, otlp_http]}}
    metrics: {{receivers: [otlp], exporters: [debug, otlp_http]}}
"""


@dataclass(frozen=True)
class Collector:
    """Where to export to, what came through, and what the collector itself has written."""

    http: str
    grpc: str
    seen: OtlpStandIn
    log: Path | None = None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@asynccontextmanager
async def real_collector(folder: Path) -> AsyncIterator[Collector]:
    """Runs an OpenTelemetry Collector that hands on what it gets."""
    if not OTELCOL.exists():
        pytest.skip("no OpenTelemetry Collector is built: make collector")
    over_grpc, over_http = _free_ports(2)
    config, log = folder / "config.yaml", folder / "log.txt"
    async with otlp_stand_in() as seen:
        config.write_text(CONFIG.format(grpc=over_grpc, http=over_http, next=seen.http))
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                OTELCOL, "--config", config, stdout=output, stderr=output, env={"PATH": os.defpath}
            )
        try:
            await until(lambda: "Everything is ready" in log.read_text(), "the collector runs", 30)
            yield Collector(f"http://127.0.0.1:{over_http}", f"http://127.0.0.1:{over_grpc}", seen, log)
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def stand_in(folder: Path) -> AsyncIterator[Collector]:
    """Runs what only speaks as a collector does."""
    async with otlp_stand_in() as seen:
        yield Collector(seen.http, seen.grpc, seen)


def variables(collector: Collector, protocol: str) -> dict[str, str]:
    """Returns the standard variables that send everything to the collector."""
    endpoint = collector.grpc if protocol == "grpc" else collector.http
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


async def streamed(address: str, count: int, tokens: int) -> list[str]:
    """Reads so many answers at the same time; the first one belongs to a trace."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = GenerateServiceStub(channel)
        request = GenerateRequest(prompt=PROMPT, stopping=Stopping(max_tokens=tokens))
        parent = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
        metadata = [parent, *[()] * (count - 1)]
        return await asyncio.gather(*(text_of(stub.StreamGenerate(request, metadata=one)) for one in metadata))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "protocol"), [(stand_in, "grpc"), (real_collector, "grpc"), (real_collector, "http/protobuf")]
)
async def test_a_server_under_load_exports_the_spans_of_each_run_and_its_metrics(
    kind: Callable[[Path], AbstractAsyncContextManager[Collector]], protocol: str, tmp_path: Path
) -> None:
    async with kind(tmp_path) as collector:
        async with begun(*SERVE, variables=variables(collector, protocol)) as process:
            assert process.stdout is not None
            address = (await process.stdout.readline()).decode().split()[-1]
            texts = await streamed(address, STREAMS, 10)
            assert [len(text.split()) for text in texts] == [10] * STREAMS
            process.send_signal(signal.SIGTERM)
            done = await outcome(process)
        # Exporting has cost no line: it went well.
        assert (done.code, done.err) == (0, "")
        seen, log = collector.seen, collector.log
        calls = [span for span in seen.spans if span.kind == Span.SPAN_KIND_SERVER]
        assert len(calls) == STREAMS
        assert {span.name for span in calls} == {"tokenwire.v1.GenerateService/StreamGenerate"}
        _is_a_tree([span for span in seen.spans if span.trace_id.hex() == TRACE])
        assert {names.RPC_DURATION, names.SERVER_DURATION, names.SERVER_FIRST_TOKEN} <= set(seen.instruments)
        assert {resource["service.name"] for resource in seen.resources} == {"tokenwire"}
        assert len({resource["service.instance.id"] for resource in seen.resources}) == 1
        assert PROMPT not in f"{seen.traces}{seen.metrics}"
        if log is not None:
            text = log.read_text()
            assert TRACE in text
            assert f"Name: {names.SERVER_FIRST_TOKEN}" in text


def _is_a_tree(spans: list[Span]) -> None:
    """Asserts that the spans of one run hang together below the client's: call, run and attempt."""
    [call] = [span for span in spans if span.parent_span_id.hex() == PARENT]
    assert call.kind == Span.SPAN_KIND_SERVER
    [run] = [span for span in spans if span.parent_span_id == call.span_id]
    [attempt] = [span for span in spans if span.parent_span_id == run.span_id]
    assert len(spans) == 3
    assert run.name.startswith(names.SPAN_RUN)
    assert attributes(attempt)[names.REQUEST_MODEL] == "scripted"


@pytest.mark.asyncio
async def test_each_signal_can_have_an_endpoint_and_a_protocol_of_its_own() -> None:
    async with otlp_stand_in() as seen:
        told = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{seen.http}/elsewhere/traces",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-key=for-traces",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": seen.grpc,
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "1.0",
        }
        async with begun(*SERVE, variables=told) as process:
            assert process.stdout is not None
            address = (await process.stdout.readline()).decode().split()[-1]
            await streamed(address, 1, 3)
            process.send_signal(signal.SIGTERM)
            assert (await outcome(process)).code == 0
        assert {path for path in seen.paths if path != "grpc"} == {"/elsewhere/traces"}
        assert "grpc" in seen.paths
        assert [headers["x-key"] for headers in seen.headers if "x-key" in headers] == ["for-traces"]
        assert seen.spans
        assert seen.instruments


@pytest.mark.asyncio
async def test_a_collector_that_never_answers_fails_no_request_and_holds_up_no_end() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as dead:
        endpoint = "http://127.0.0.1:{1}".format(*dead.getsockname())
        told = variables(Collector(endpoint, endpoint, OtlpStandIn()), "grpc")
        told |= {"TOKENWIRE_OTEL_FLUSH_SECONDS": "0.5", "OTEL_BSP_MAX_QUEUE_SIZE": "8"}
        told |= {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        async with begun(*SERVE, variables=told) as process:
            assert process.stdout is not None
            address = (await process.stdout.readline()).decode().split()[-1]
            texts = await streamed(address, STREAMS, 5)
            assert [len(text.split()) for text in texts] == [5] * STREAMS
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                done = await outcome(process)
    assert done.code == 0
    assert "the last telemetry was not sent in time" in done.err
    assert "127.0.0.1" not in done.err
    assert PROMPT not in done.err
    # A line now and then, not one for each span that has no place.
    assert len(done.err.splitlines()) <= 5
