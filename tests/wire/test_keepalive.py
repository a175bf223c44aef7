"""Connections in silence: a client that pings is left alone, and one that is gone without a word is noticed.

Time itself is what is tested here, so some of these tests take seconds.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from harness.byte_calls import unary_call
from harness.fault_proxy import fault_proxy
from harness.reading import next_event, text_of
from harness.reading_client import reading_client
from harness.service import Service, service
from harness.waiting import until
from tokenwire.dispatch.run import Run
from tokenwire.engines.scripted import Pause, ScriptedEngine, WaitFor, words
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub

PINGING = (
    ("grpc.keepalive_time_ms", 600),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
ONE_PING_MORE_SECONDS = 1.2
METHOD = "/test.Bare/Method"


# The server notices silent clients soon.
IMPATIENT = {"keepalive_seconds": 0.3, "ping_timeout_seconds": 0.5}


def _runs(running: Service) -> list[Run]:
    return running.app.runs.list("local")


async def _ends_as_orphan(run: Run, engine: ScriptedEngine) -> None:
    await until(lambda: run.end is not None, "the run has ended")
    assert run.error is not None
    assert run.error.reason == "ORPHANED"
    assert run.readers == 0
    assert engine.stopped == 1


@pytest.mark.asyncio
async def test_a_client_that_pings_in_a_silent_prefill_keeps_its_stream_where_servers_without_our_option_end_it() -> (
    None
):
    ended = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [WaitFor(ended), Pause(ONE_PING_MORE_SECONDS), *words("at last")])

    async def without_our_option(options: list[tuple[str, int]]) -> None:
        async with _bare(_silent, options) as port, _pinging(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary_call(channel, METHOD)(b"")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "Too many pings" in (caught.value.details() or "")

    async with service(engine) as running, _pinging(running.address) as channel:
        stream = GenerateServiceStub(channel).StreamGenerate(GenerateRequest(prompt="hi"))
        async with asyncio.TaskGroup() as group:
            group.create_task(without_our_option([]))
            # The often copied option with `recv` in its name changes nothing.
            group.create_task(without_our_option([("grpc.http2.min_recv_ping_interval_without_data_ms", 500)]))
        ended.set()
        text = await text_of(stream)
    assert text == "at last"


@pytest.mark.asyncio
async def test_a_frozen_client_is_noticed_and_one_that_is_merely_silent_is_not() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("hi")[:-1], Pause(None)])
    async with service(engine, **IMPATIENT) as running, reading_client(running.port) as client:
        (frozen,) = _runs(running)
        silent = running.generate.StreamGenerate(GenerateRequest(prompt="hi"))
        await next_event(silent)
        client.send_signal(signal.SIGSTOP)
        await _ends_as_orphan(frozen, engine)
        assert [run.readers for run in _runs(running)] == [1, 0]
        silent.cancel()


@pytest.mark.asyncio
async def test_a_killed_client_is_noticed_at_once() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("hi")[:-1], Pause(None)])
    async with service(engine) as running, reading_client(running.port) as client:
        (run,) = _runs(running)
        client.kill()
        await _ends_as_orphan(run, engine)


@pytest.mark.asyncio
@pytest.mark.parametrize("flowing", [False, True])
async def test_a_connection_whose_network_is_gone_is_noticed(flowing: bool) -> None:
    gone = asyncio.Event()
    after = [*words("word " * 1000)[:-1], Pause(None)] if flowing else [Pause(None)]
    engine = ScriptedEngine(script=lambda job: [*words("hi")[:-1], WaitFor(gone), *after])
    async with (
        service(engine, **IMPATIENT) as running,
        fault_proxy(running.port) as proxy,
        grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel,
    ):
        stream = GenerateServiceStub(channel).StreamGenerate(GenerateRequest(prompt="hi"))
        await next_event(stream)
        (run,) = _runs(running)
        assert run.readers == 1
        proxy.black_hole()
        gone.set()
        await _ends_as_orphan(run, engine)
        assert proxy.swallowed > 0
        stream.cancel()


@pytest.mark.asyncio
async def test_300_streams_of_one_channel_all_begin() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with service(engine) as running:
        streams = [running.generate.StreamGenerate(GenerateRequest(prompt="hi")) for _ in range(300)]
        for stream in streams:
            await next_event(stream)
        await until(lambda: engine.started == 300, "every stream has its engine")
        for stream in streams:
            stream.cancel()
        await until(lambda: engine.stopped == 300, "every stream is cancelled")


@pytest.mark.asyncio
async def test_further_streams_hang_silently_on_a_server_with_a_low_bound() -> None:
    begun = 0
    more = asyncio.Event()

    async def handler(request: bytes, context: Any) -> bytes:
        nonlocal begun
        begun += 1
        await more.wait()
        return b""

    async with (
        _bare(handler, [("grpc.max_concurrent_streams", 2)]) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        # One after the other, so that the client knows the bound; both stay until the third has given up.
        held = []
        for number in (1, 2):
            held.append(unary_call(channel, METHOD)(b""))
            await until(lambda number=number: begun == number, "the call has begun")  # type: ignore[misc]
        code = await unary_call(channel, METHOD)(b"", timeout=0.5).code()
        assert begun == 2
        more.set()
        for call in held:
            await call
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def _pinging(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=PINGING)


async def _silent(request: bytes, context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


@asynccontextmanager
async def _bare(handler: Any, options: list[tuple[str, int]]) -> AsyncIterator[int]:
    server = grpc.aio.server(options=options)
    method: Any = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Bare", {"Method": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
