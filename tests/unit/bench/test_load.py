"""The load programs against each other, alone and with a gateway in between."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from bench.programs import SOURCES, Programs
from bench.systems.requests import GENERATE_PATH, generate
from harness.redis_server import free_port
from unit.bench.go_programs import built

ROOT = Path(__file__).parents[3]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hi", "max_tokens": 7, "stream": True},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 7, "stream": True},
    "/generate": {"text": "hi", "sampling_params": {"max_new_tokens": 7}, "stream": True},
}


@pytest.fixture(scope="module")
def programs() -> Programs:
    return built()


class Engine:
    """An engine that runs: a port at 500 tokens a second, where streams tick together, and one at full speed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stderr is not None
        self.paced, self.fast = (int(process.stderr.readline().rpartition(":")[2]) for _ in range(2))

    def cost(self) -> dict[str, float]:
        """What it says of itself."""
        connection = HTTPConnection("127.0.0.1", self.fast, timeout=10)
        connection.request("GET", "/-/cost")
        told: dict[str, float] = json.load(connection.getresponse())
        connection.close()
        return told

    def end(self) -> str:
        """Ends it and returns what it has printed."""
        self._process.send_signal(signal.SIGTERM)
        printed, _ = self._process.communicate(timeout=10)
        assert self._process.returncode == 0
        return printed


@pytest.fixture
def engine(programs: Programs) -> Iterator[Engine]:
    command = [str(programs.engine), "0:500:1", "0:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield Engine(process)
        process.terminate()


@contextmanager
def bare_gateway(engine_port: int) -> Iterator[int]:
    port = free_port()
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'service'}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "bench.gateways.bare", str(port), str(engine_port)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                assert process.poll() is None
                assert time.monotonic() < deadline, "the gateway does not start"
                time.sleep(0.02)
            yield port
            # Else somebody else had the port.
            assert process.poll() is None
        finally:
            process.terminate()


def count(programs: Programs, *words: object) -> dict[str, Any]:
    command = [str(programs.client), *map(str, words)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def test_every_token_through_a_grpc_gateway_is_counted(programs: Programs, engine: Engine, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(generate(60))
    with bare_gateway(engine.paced) as port:
        told = count(programs, "grpc", port, 40, 3, 60, GENERATE_PATH, body)
    assert (told["done"], told["failed"], told["calls_failed"]) == (40, 0, {})
    assert told["tokens"] == told["expected"] == 2400
    assert 40 <= told["token_messages"] == told["messages"] <= 2400
    assert 0 < told["added_p50_us"] <= told["added_p99_us"] <= told["added_p999_us"] <= told["added_max_us"] < 60e6
    assert 0 < told["ttft_p50_us"] <= told["ttft_p99_us"]
    assert told["cpu_seconds"] > 0
    assert told["tokens_per_second"] > 0
    body.write_bytes(generate(3000))
    with bare_gateway(engine.fast) as port:
        told = count(programs, "grpc", port, 10, 2, 3000, GENERATE_PATH, body)
        wrong = count(programs, "grpc", port, 2, 1, 2999, GENERATE_PATH, body)
        unknown = count(programs, "grpc", port, 2, 1, 3000, "/tokenwire.v1.GenerateService/Nothing", body)
    assert (told["done"], told["tokens"]) == (10, 30_000)
    assert (wrong["done"], wrong["calls_failed"]) == (0, {"tokens": 2})
    assert unknown["calls_failed"] == {"12": 2}
    assert engine.cost()["tokens"] == 2400 + 36_000


@pytest.mark.parametrize("path", BODIES)
def test_each_dialect_is_counted_over_sse(programs: Programs, engine: Engine, path: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_text(json.dumps(BODIES[path]))
    for port in (engine.paced, engine.fast):
        told = count(programs, "sse", port, 20, 1, 7, path, body, "--seconds-max", 20)
        assert (told["done"], told["failed"], told["tokens"], told["token_messages"]) == (20, 0, 140, 140)
    assert engine.cost()["tokens"] == 280


def test_an_engine_tells_its_cost_when_it_ends(engine: Engine) -> None:
    told = json.loads(engine.end())
    assert (told["tokens"], told["running"]) == (0, 0)
    assert told["cpu_seconds"] > 0


def test_streams_can_be_held_open(programs: Programs, engine: Engine, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_text(json.dumps(BODIES["/generate"] | {"sampling_params": {"max_new_tokens": 100_000}}))
    command = [str(programs.client), "sse", str(engine.paced), "30", "1", "100000", "/generate", str(body)]
    with subprocess.Popen(
        [*command, "--ramp", "300", "--hold", "0.2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stderr is not None
        assert client.stderr.readline() == "held\n"
        assert engine.cost()["running"] == 30
        printed, _ = client.communicate(timeout=30)
    told = json.loads(printed)
    assert (told["held"], told["done"], told["failed"]) == (30, 0, 0)
    assert told["tokens"] == told["expected"] > 30


def test_where_nobody_listens_there_is_nothing_to_measure(programs: Programs, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"")
    for wire in ("grpc", "sse"):
        command = [str(programs.client), wire, str(free_port()), "2", "1", "1", "/x", str(body)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "port" in ended.stderr


def test_the_programs_own_tests_pass(programs: Programs) -> None:
    for command in (["go", "vet", "./..."], ["go", "test", "./..."]):
        ended = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    unformatted = subprocess.run(["gofmt", "-l", "."], cwd=SOURCES, capture_output=True, text=True)
    assert unformatted.stdout == ""
