"""`tokenwire serve` as a process."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness.command_line import Outcome, begun, outcome, tokenwire
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.sampling_pb2 import Stopping

SERVE = ("serve", "--engine", "scripted", "--listen", "127.0.0.1:0")


@asynccontextmanager
async def served(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Runs `tokenwire serve` and yields the process and its address, once it says that it serves."""
    async with begun(*SERVE, *options) as process:
        assert process.stdout is not None
        ready = (await process.stdout.readline()).decode()
        assert ready.startswith("tokenwire 0.1.0 serves on 127.0.0.1:"), (ready, await process.communicate())
        engines = (await process.stdout.readline()).decode()
        assert engines == "engine scripted (scripted): scripted, ready\n"
        yield process, ready.split()[-1]


@pytest.mark.asyncio
async def test_it_serves_what_the_command_line_asks_for_and_ends_at_sigterm() -> None:
    async with served() as (process, address):
        answer = await tokenwire("generate", "hi", "--max-tokens", "2", "--target", address)
        process.send_signal(signal.SIGTERM)
        done = await outcome(process)
    assert answer.code == 0
    assert len(answer.out.split()) == 2
    assert (done.code, done.out) == (0, "")
    # Behind a pipe, every line of the log is JSON.
    lines = [json.loads(line) for line in done.err.splitlines()]
    [rpc] = [line for line in lines if line["event"] == "rpc"]
    assert (rpc["method"], rpc["code"], rpc["level"]) == ("/tokenwire.v1.GenerateService/StreamGenerate", "OK", "info")


async def stopped_at_once() -> Outcome:
    """Stops a service by two signals while a run goes on; the first one drains."""
    async with (
        served("--drain-seconds", "600", "--log-level", "error") as (process, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        # Fifty seconds of tokens.
        request = GenerateRequest(prompt="hi", stopping=Stopping(max_tokens=1000), run=RunOptions(detached=True))
        stream = GenerateServiceStub(channel).StreamGenerate(request)
        started = await stream.read()
        assert isinstance(started, Event)
        assert started.HasField("start")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.returncode is None
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            done = await outcome(process)
        stream.cancel()
        watch.cancel()
    return done


@pytest.mark.asyncio
async def test_sigterm_drains_and_a_second_signal_stops_at_once() -> None:
    assert (await stopped_at_once()).code == 0


@pytest.mark.asyncio
async def test_a_second_signal_is_no_error() -> None:
    done = await stopped_at_once()
    assert done.err == ""


@pytest.mark.asyncio
async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    async with served() as (_, address):
        done = await tokenwire("serve", "--engine", "scripted", "--listen", address)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"tokenwire: cannot listen on {address}. Is it taken by another process")


@pytest.mark.asyncio
async def test_wrong_settings_are_told_all_at_once() -> None:
    variables = {"TOKENWIRE_SLOTS": "none", "TOKENWIRE_SLOT": "1", "TOKENWIRE_TARGET": "127.0.0.1:1"}
    done = await tokenwire(*SERVE, "--drain-seconds", "-1", variables=variables)
    assert (done.code, done.out) == (1, "")
    assert "drain_seconds: wants" in done.err
    assert "slots: wants" in done.err
    assert "did you mean TOKENWIRE_SLOTS?" in done.err
    # The client's own variable is none of the server's business.
    assert "TOKENWIRE_TARGET" not in done.err
