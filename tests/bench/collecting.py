"""A collector for spans and metrics that runs: OpenTelemetry's own if `make collector` has built it, else ours."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.child import Child
from bench.collector import COUNTS_PATH
from bench.engine import takes_connections
from bench.ports import Ports

_TESTS = Path(__file__).parents[1]
REAL = _TESTS.parent / ".cache" / "bench" / "bin" / "otelcol"
_START_SECONDS = 20
_METRICS_PATH = "/metrics"
_ACCEPTED = re.compile(r"^otelcol_receiver_accepted_(?:spans|metric_points)(?:_total)?\{.*\} ([\d.e+]+)$", re.MULTILINE)


class Sink:
    """A collector that runs.

    Args:
        child: its process.
        port: where it takes OTLP over HTTP.
        counts: the port and the path where it tells what has come.

    Attributes:
        url: where it takes OTLP over HTTP.
    """

    def __init__(self, child: Child, port: int, counts: tuple[int, str]) -> None:
        self.child = child
        self.url = f"http://127.0.0.1:{port}"
        self._counts = counts

    def received(self) -> int:
        """Returns how much has come so far, in whatever it counts; 0 if it cannot be asked."""
        port, path = self._counts
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            return counted(connection.getresponse().read().decode())
        except (OSError, HTTPException):
            return 0
        finally:
            connection.close()


def counted(answer: str) -> int:
    """Returns what a collector says has come: spans and points of metrics, or requests of our own."""
    if answer.startswith("{"):
        return sum(json.loads(answer)["requests"].values())
    return round(sum(float(one) for one in _ACCEPTED.findall(answer)))


@contextmanager
def collecting(ports: Ports, folder: Path, program: Path = REAL) -> Iterator[Sink]:
    """Runs a collector while the block runs. Raises RuntimeError if it does not start.

    Args:
        ports: where to take its ports from.
        folder: for its files.
        program: OpenTelemetry's; without it our own runs.
    """
    port = ports.take()
    counts = (port, COUNTS_PATH)
    command = [sys.executable, "-m", "bench.collector", str(port)]
    if program.exists():
        counts = (ports.take(), _METRICS_PATH)
        file = folder / "collector.json"
        file.write_text(json.dumps(_configuration(port, counts[0])))
        command = [str(program), "--config", str(file)]
    with Child("collector", command, folder=folder, environment={"PYTHONPATH": str(_TESTS)}) as child:
        deadline = time.monotonic() + _START_SECONDS
        while not all(takes_connections(one) for one in (port, counts[0])):
            if child.ended() or time.monotonic() > deadline:
                raise RuntimeError(f"the collector does not start: {child.ended()} {child.said().strip()}")
            time.sleep(0.01)
        yield Sink(child, port, counts)


def _configuration(port: int, metrics_port: int) -> dict[str, object]:
    pipeline = {"receivers": ["otlp"], "exporters": ["debug"]}
    prometheus = {"host": "127.0.0.1", "port": metrics_port}
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"debug": {"verbosity": "basic"}},
        "service": {
            "pipelines": {"traces": pipeline, "metrics": pipeline},
            "telemetry": {
                "logs": {"level": "error"},
                "metrics": {"level": "basic", "readers": [{"pull": {"exporter": {"prometheus": prometheus}}}]},
            },
        },
    }
