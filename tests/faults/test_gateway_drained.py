"""SIGTERM of a gateway whose journal outlives it."""

import signal
from contextlib import AsyncExitStack

import grpc
import pytest

from faults.engine import expected
from faults.processes import Home
from faults.reading import PROMPT, reading, whole
from harness.waiting import until
from tokenwire.v1.event_pb2 import DETACH_REASON_DRAINING
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.sampling_pb2 import Stopping
from tokenwire_client.wire import failure_of

TOKENS = 110


@pytest.mark.asyncio
async def test_streams_are_sent_away_by_a_drain_and_go_on_after_the_restart(home: Home) -> None:
    engine = home.engine(hold=40)
    gateway = home.gateway({"one": engine}, journal=f"file:{home.folder / 'journal'}")
    await home.start(engine, gateway)
    prompts = [f"{PROMPT} {number}" for number in range(4)]
    async with gateway.client() as client, AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(reading(client.stream, prompt, max_tokens=TOKENS)) for prompt in prompts
        ]
        for reader in readers:
            await reader.reads(30)
        gateway.send(signal.SIGTERM)
        assert await gateway.ended() == 0
        await engine.idle()
        await engine.release()
        gateway.start()
        for prompt, reader in zip(prompts, readers, strict=True):
            await whole(reader, prompt, TOKENS)
            assert reader.failures[0].reason == "DRAINING"
            assert reader.ways == ["FIRST", "BY_TOKENS"]
    await engine.idle()


@pytest.mark.asyncio
async def test_a_drain_says_detached_with_a_cursor_that_goes_on(home: Home) -> None:
    engine = home.engine(hold=40)
    gateway = home.gateway({"one": engine}, journal=f"file:{home.folder / 'journal'}")
    await home.start(engine, gateway)
    request = GenerateRequest(prompt=PROMPT, stopping=Stopping(max_tokens=TOKENS), run=RunOptions(request_id="mine"))
    text, last, status = "", None, None
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        call = GenerateServiceStub(channel).StreamGenerate(request)
        try:
            async for event in call:
                last = event
                text += event.delta.text
                if event.delta.token_offset + event.delta.token_count >= 40:
                    gateway.send(signal.SIGTERM)
        except grpc.aio.AioRpcError as error:
            status = error
    assert last is not None
    assert last.detached.reason == DETACH_REASON_DRAINING
    assert last.detached.resume_within_ms >= 30_000
    assert status is not None
    assert status.code() is grpc.StatusCode.UNAVAILABLE
    assert (failure_of(status).reason, failure_of(status).retryable) == ("DRAINING", True)
    assert await gateway.ended() == 0
    await engine.release()
    gateway.start()
    async with gateway.client() as client, client.attach(request_id="mine", after=last.cursor) as stream:
        text += (await stream.result()).text
    assert text == expected(PROMPT, TOKENS)
    await engine.idle()


@pytest.mark.asyncio
async def test_a_drain_lets_runs_end_that_can(home: Home) -> None:
    engine = home.engine(hold=40)
    gateway = home.gateway({"one": engine}, journal=f"file:{home.folder / 'journal'}", drain_seconds="20")
    await home.start(engine, gateway)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(30)
        gateway.send(signal.SIGTERM)
        await until(lambda: "draining" in gateway.output, "it drains")
        await engine.release()
        await whole(reader, PROMPT, TOKENS)
        assert await gateway.ended() == 0
        gateway.start()
        async with client.attach(reader.run_id) as stream:
            assert (await stream.result()).text == reader.text
    assert not reader.failures
    assert reader.ways == ["FIRST"]
