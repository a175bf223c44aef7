"""Clients that mean harm: whatever they do, the next good client is served and nothing is left over."""

import asyncio
import gc
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from h2.errors import ErrorCodes

from harness.chosen_transport import CHOSEN
from harness.raw_http2 import grpc_message, raw_http2
from harness.service import Service, service
from harness.waiting import until
from tokenwire.engines.scripted import Pause, ScriptedEngine, Step, words
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.server_service_pb2 import GetServerInfoRequest

UNARY = "/tokenwire.v1.GenerateService/Generate"
STREAM = "/tokenwire.v1.GenerateService/StreamGenerate"
GOOD = GenerateRequest(prompt="good")
BAD = GenerateRequest(prompt="bad").SerializeToString()
OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = "0", "8", "12", "13"


@asynccontextmanager
async def attacked() -> AsyncIterator[tuple[Service, ScriptedEngine]]:
    """A service to be attacked. Afterwards a good client must be served, and nothing of the attack may run."""
    engine = ScriptedEngine(script=lambda job: words("well") if job.submission.prompt == "good" else _endless())
    async with service(engine) as running:
        yield running, engine
        assert (await running.generate.Generate(GOOD)).choices[0].text == "well"
        await until(lambda: engine.running == 0, "the engine is idle")
        assert not any(run.readers for run in running.app.runs.list("local"))


def _endless() -> list[Step]:
    return [*words("bad")[:-1], Pause(None)]


@pytest.mark.asyncio
async def test_5000_calls_that_are_reset_at_once_leave_nothing() -> None:
    # CVE-2023-44487.
    async with attacked() as (running, engine), raw_http2(running.port) as raw:
        with suppress(ConnectionError):
            for number in range(5000):
                stream = await raw.request(STREAM, grpc_message(BAD), flush=False)
                await raw.reset(stream, flush=number % 100 == 99)
        # The others are served meanwhile.
        assert (await running.generate.Generate(GOOD)).choices[0].text == "well"
    assert engine.started == engine.stopped + 2


@pytest.mark.asyncio
async def test_a_flood_of_pings_is_sent_away() -> None:
    async with attacked() as (running, _), raw_http2(running.port) as raw:
        await raw.ping(400)
        await raw.wait(lambda: raw.closed, "the connection is closed")
        assert raw.goaway == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.asyncio
async def test_a_message_that_claims_to_have_2_gib_is_refused_at_once() -> None:
    async with attacked() as (running, engine), raw_http2(running.port) as raw:
        stream = await raw.request(UNARY, grpc_message(BAD, length=2**31 - 1), end=False)
        assert (await raw.answered(stream))["grpc-status"] == RESOURCE_EXHAUSTED
        assert engine.started == 0


@pytest.mark.asyncio
async def test_a_compressed_message_that_grows_beyond_the_limit_is_refused() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(bytes(64 * 1024 * 1024)) + packer.flush()
    async with attacked() as (running, engine), raw_http2(running.port) as raw:
        # Small enough for one window.
        assert len(bomb) > 60_000
        body = grpc_message(bomb, compressed=True)
        stream = await raw.request(UNARY, body[:16_000], headers=[("grpc-encoding", "gzip")], end=False)
        for start in range(16_000, len(body), 16_000):
            await raw.more(stream, body[start : start + 16_000], end=start + 16_000 >= len(body))
        assert (await raw.answered(stream))["grpc-status"] == RESOURCE_EXHAUSTED
        assert engine.started == 0


@pytest.mark.asyncio
async def test_a_compressed_message_without_an_encoding_is_refused() -> None:
    async with attacked() as (running, engine), raw_http2(running.port) as raw:
        stream = await raw.request(UNARY, grpc_message(BAD, compressed=True))
        assert (await raw.answered(stream))["grpc-status"] == INTERNAL
        assert engine.started == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body", [grpc_message(BAD, length=len(BAD) + 10), grpc_message(BAD)[:3], b""], ids=["message", "prefix", "nothing"]
)
async def test_a_request_that_is_cut_short_reaches_no_handler_and_costs_its_client_alone(body: bytes) -> None:
    async with attacked() as (running, engine):
        async with raw_http2(running.port) as raw:
            cut = await raw.request(UNARY, body)
            # Answered behind it.
            whole = await raw.request(UNARY, grpc_message(GOOD.SerializeToString()))
            assert (await raw.answered(whole))["grpc-status"] == OK
            # grpc.aio leaves such a call without a status; it goes with its connection.
            assert raw.headers[cut].get("grpc-status") == (None if CHOSEN == "grpc_aio" else INTERNAL)
        assert engine.started == 1


@pytest.mark.asyncio
async def test_of_two_messages_for_a_unary_method_the_first_one_counts() -> None:
    async with attacked() as (running, engine), raw_http2(running.port) as raw:
        two = grpc_message(GOOD.SerializeToString()) + grpc_message(BAD)
        assert (await raw.answered(await raw.request(UNARY, two)))["grpc-status"] == OK
        assert engine.started == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(506),
        os.urandom(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff\x00\x00\x00\x00\x00\x00",
    ],
    ids=["http/1.1", "tls", "noise", "noise after the preface", "a frame of 16 MiB"],
)
async def test_what_is_not_http2_is_disconnected(data: bytes) -> None:
    async with attacked() as (running, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(data)
        with suppress(ConnectionError):
            async with asyncio.timeout(20):
                while await reader.read(65536):
                    pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.asyncio
async def test_the_content_type_of_a_call_is_not_looked_at() -> None:
    # grpc's own choice. No browser can send such a call: it takes HTTP/2 without TLS or an upgrade.
    async with attacked() as (running, _), raw_http2(running.port) as raw:
        stream = await raw.request(UNARY, grpc_message(GOOD.SerializeToString()), content_type="text/html")
        assert (await raw.answered(stream))["grpc-status"] == OK


@pytest.mark.asyncio
async def test_metadata_beyond_16_kib_is_refused() -> None:
    async with attacked() as (running, engine), raw_http2(running.port) as raw:
        stream = await raw.request(UNARY, grpc_message(BAD), headers=[("x-large", "x" * 17_000)])
        assert (await raw.answered(stream)).get("grpc-status") == RESOURCE_EXHAUSTED
        assert engine.started == 0


@pytest.mark.asyncio
async def test_2000_methods_that_do_not_exist_are_remembered_nowhere() -> None:
    async with attacked() as (running, _), raw_http2(running.port) as raw:
        streams = [await raw.request(f"/nothing.v1.Nothing/Method{number}", flush=False) for number in range(2000)]
        await raw.flush()
        await raw.wait(lambda: len(raw.ended) == 2000, "all are answered")
        assert {raw.headers[stream]["grpc-status"] for stream in streams} == {UNIMPLEMENTED}
        name = "nothing.v1.Nothing/Method7"
        # Those that hold nothing but text are no garbage collector's business, and so found at their holders alone.
        held = (one for holder in gc.get_objects() for one in gc.get_referents(holder) if type(one) in (dict, set))
        assert not any(key in one for one in held for key in (name, f"/{name}", f"/{name}".encode()))


@pytest.mark.asyncio
async def test_2000_calls_at_once_are_all_served() -> None:
    # By default grpc ends some of them as CANCELLED, of other clients too.
    async with attacked() as (running, _):
        calls = [running.server.GetServerInfo(GetServerInfoRequest()) for _ in range(2000)]
        codes = [await call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK}


@pytest.mark.asyncio
async def test_100_connections_that_say_nothing_keep_nobody_out() -> None:
    async with attacked() as (running, _):
        silent = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(100)]
        assert (await running.generate.Generate(GOOD)).choices[0].text == "well"
        for _, writer in silent:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
