"""What leaves the process: nothing by default; by OTLP what is planned, whatever the collector does."""

import asyncio
import json
import socket
import sys
from collections.abc import Mapping, Sequence

import pytest

from harness.chosen_transport import CHOSEN
from harness.command_line import Outcome, environment, outcome
from harness.otlp_stand_in import otlp_stand_in

# Plan as arguments: protocol, endpoints of traces and metrics, seconds to flush.
PROGRAM = """
import os, sys, threading
from opentelemetry import metrics, trace
from tokenwire.telemetry.logs import configure_logs
from tokenwire.telemetry.plan import Otlp, Plan
from tokenwire.telemetry.providers import exporting
configure_logs(level="info", log_format="json")
protocol, traces, metered, flush = sys.argv[1:]
def target(endpoint):
    return Otlp(protocol=protocol, endpoint=endpoint) if endpoint != "-" else None
with exporting(Plan(traces=target(traces), metrics=target(metered), flush_seconds=float(flush)), "1.2.3"):
    with trace.get_tracer("tokenwire").start_as_current_span("one"):
        metrics.get_meter("tokenwire").create_counter("counted").add(1)
    heard = [name for name in ("opentelemetry.sdk", "prometheus_client", "opentelemetry.exporter")
             if any(module.startswith(name) for module in sys.modules)]
    print(heard, threading.active_count(), flush=True)
# What is left would be sent when the interpreter ends.
os._exit(0)
"""


async def exported(*plan: str, flush: float = 10, variables: Mapping[str, str] | None = None) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", PROGRAM, *plan, str(flush)),
        env=environment(**(variables or {})),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await outcome(process)


@pytest.mark.asyncio
async def test_without_anything_to_send_the_sdk_is_not_loaded_and_no_thread_runs() -> None:
    done = await exported("grpc", "-", "-")
    assert (done.code, done.out, done.err) == (0, "[] 1\n", "")


SERVER = """
import asyncio, sys, threading
from tokenwire.app import build
from tokenwire.cli.exporting import plan
from tokenwire.cli.serve import serve_command
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.server import serving
from tokenwire.settings import Settings
from tokenwire.telemetry.providers import exporting
async def main():
    serve_command()
    flags = {"listen": "127.0.0.1:0", "transport": sys.argv[1]}
    settings = Settings.load(flags, {}, __import__("pathlib").Path("/nowhere"))
    with exporting(plan(settings), "1"):
        async with serving(build(settings, [ScriptedEngine()])):
            pass
asyncio.run(main())
unwanted = "opentelemetry.sdk", "opentelemetry.exporter", "prometheus_client", "tokenwire.admin.port"
print([module for module in sys.modules if module.startswith(unwanted)])
"""


@pytest.mark.asyncio
async def test_a_server_without_settings_loads_neither_the_sdk_nor_an_http_server() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVER, CHOSEN), env=environment(), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"[]\n")


def _endpoints(http: str, grpc: str, protocol: str) -> Sequence[str]:
    return (grpc, grpc) if protocol == "grpc" else (f"{http}/v1/traces", f"{http}/v1/metrics")


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_spans_and_metrics_are_sent_before_the_end_and_say_who_sends(protocol: str) -> None:
    async with otlp_stand_in() as collector:
        plan = protocol, *_endpoints(collector.http, collector.grpc, protocol)
        settings: list[dict[str, str]] = [
            {},
            {
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret",
                "OTEL_SERVICE_NAME": "mine",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            },
        ]
        for variables in settings:
            done = await exported(*plan, variables=variables)
            assert (done.code, done.err) == (0, "")
    assert [span.name for span in collector.spans] == ["one", "one"]
    assert collector.instruments["counted"].sum.data_points[0].as_int == 1
    first, second = collector.resources[0], collector.resources[-1]
    assert (first["service.name"], first["service.version"]) == ("tokenwire", "1.2.3")
    assert (second["service.name"], second["deployment.environment.name"]) == ("mine", "test")
    # Traces and metrics of one process say the same; another process says something else.
    assert len({resource["service.instance.id"] for resource in collector.resources}) == 2
    assert "x-key" not in collector.headers[0]
    assert collector.headers[-1]["x-key"] == "secret"
    if protocol == "http/protobuf":
        assert collector.headers[-1]["content-encoding"] == "gzip"


@pytest.mark.asyncio
async def test_the_sampler_and_the_interval_are_those_of_the_sdks_own_variables() -> None:
    async with otlp_stand_in() as collector:
        plan = "grpc", collector.grpc, collector.grpc
        done = await exported(*plan, variables={"OTEL_TRACES_SAMPLER": "always_off"})
        assert (done.code, done.err) == (0, "")
        assert not collector.spans
        assert set(collector.instruments) == {"counted"}
        done = await exported(*plan, variables={"OTEL_METRIC_EXPORT_INTERVAL": "0"})
    assert "metrics cannot be exported" in done.err


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("silent", [False, True])
async def test_a_dead_collector_costs_a_line_that_tells_no_address_and_no_more_time_than_planned(
    protocol: str, silent: bool
) -> None:
    # It takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if silent else 1
        endpoint = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(20):
            done = await exported(protocol, *_endpoints(endpoint, endpoint, protocol), flush=0.5)
    assert done.code == 0
    *complaints, last = [json.loads(line) for line in done.err.splitlines()]
    assert last["event"] == "the last telemetry was not sent in time"
    if not silent:
        # One for both exporters.
        [complaint] = complaints
        assert (complaint["event"], complaint["trouble"][:15]) == ("telemetry export", "Transient error")
        assert complaint["cause"] == ("UNAVAILABLE" if protocol == "grpc" else "ConnectionError")
    assert "127.0.0.1" not in done.err


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("protocol", "variable", "value"),
    [
        ("grpc", "OTEL_EXPORTER_OTLP_COMPRESSION", "secret"),
        ("http/protobuf", "OTEL_BSP_MAX_QUEUE_SIZE", "-7"),
        ("grpc", "OTEL_EXPORTER_OTLP_TIMEOUT", "secret"),
    ],
)
async def test_a_variable_that_makes_no_sense_is_an_error_without_its_value(
    protocol: str, variable: str, value: str
) -> None:
    done = await exported(protocol, "http://127.0.0.1:1", "-", variables={variable: value})
    last = done.err.splitlines()[-1]
    assert last.endswith("one of the variables OTEL_* makes no sense")
    assert "traces cannot be exported (" in last
    assert value not in last
