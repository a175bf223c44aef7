"""Tallies, bursts, gateways and sites that nobody has measured, made up for tests."""

from pathlib import Path
from typing import Any, cast

from bench.burst import Burst
from bench.gateway import Gateway
from bench.scenarios import SCENARIOS, Scenario
from bench.site import Site
from bench.system import Dialect, Launch, Stage, Wire
from bench.tally import Tally


class Fake:
    """A system that cannot be started."""

    wire = Wire.GRPC
    path = "/a.Service/Method"
    dialect = Dialect.COMPLETIONS

    def __init__(self, name: str = "fake", missing: str = "") -> None:
        self.name = name
        self._missing = missing

    def absent(self) -> str:
        return self._missing

    def version(self) -> str:
        return "1.0"

    def launch(self, stage: Stage) -> Launch:
        raise AssertionError("it is not to be started")

    def request(self, tokens: int) -> bytes:
        return b""


NOWHERE = cast("Site", None)


def gateway(folder: Path, doors: int = 1) -> Gateway:
    """Returns a gateway of which nothing runs."""
    made = Gateway(Fake(), folder)
    made.doors = list(range(1, doors + 1))
    return made


def tally(**values: Any) -> Tally:
    """Returns what a client counts if all goes well: 100 streams of 50 tokens in a second."""
    counts: dict[str, Any] = {
        "streams": 100,
        "done": 100,
        "failed": 0,
        "tokens": 5000,
        "expected": 5000,
        "messages": 5300,
        "wall_seconds": 1.0,
        "added_p50_us": 100.0,
        "added_p99_us": 200.0,
        "added_p999_us": 300.0,
        "ttft_p50_us": 1000.0,
        "ttft_p99_us": 2000.0,
        "tokens_per_second": 5000.0,
        "cpu_seconds": 0.1,
    }
    return Tally(**counts | values)


def burst(counted: Tally | None = None, **values: float) -> Burst:
    """Returns a burst in which the gateway has used half a second."""
    counted = counted or tally()
    seconds = {
        "gateway_seconds": 0.5,
        "engine_seconds": 0.1,
        "companion_seconds": 0.0,
        "client_seconds": counted.cpu_seconds,
        "busiest_client_seconds": counted.cpu_seconds,
    }
    return Burst(tally=counted, **seconds | values)


def scenario(name: str) -> Scenario:
    """Returns a scenario of the table."""
    return next(one for one in SCENARIOS if one.name == name)
