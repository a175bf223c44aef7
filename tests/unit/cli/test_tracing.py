"""Traces leave the process only if an endpoint is set."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from harness.command_line import environment

PROGRAM = """
import os, sys
from opentelemetry import trace
from tokenwire.telemetry.tracing import tracing
with tracing(sys.argv[1], "1.2.3"):
    with trace.get_tracer("tokenwire").start_as_current_span("one"):
        pass
print("opentelemetry.sdk.trace" in sys.modules, flush=True)
# The SDK would send what is left when the interpreter ends.
os._exit(0)
"""


def traced(endpoint: str, **variables: str) -> str:
    command = [sys.executable, "-c", PROGRAM, endpoint]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, check=True
    ).stdout.strip()


class Collector(BaseHTTPRequestHandler):
    """Keeps what was sent."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


def test_spans_are_sent_to_the_endpoint_before_the_end() -> None:
    Collector.received = []
    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}/"
        traced(endpoint)
        traced(endpoint, OTEL_SERVICE_NAME="mine")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    names = []
    for path, body in Collector.received:
        assert path == "/v1/traces"
        [sent] = ExportTraceServiceRequest.FromString(body).resource_spans
        attributes = {one.key: one.value.string_value for one in sent.resource.attributes}
        assert attributes["service.version"] == "1.2.3"
        assert [span.name for scope in sent.scope_spans for span in scope.spans] == ["one"]
        names.append(attributes["service.name"])
    assert names == ["tokenwire", "mine"]


def test_without_an_endpoint_the_sdk_is_not_loaded() -> None:
    assert traced("") == "False"
