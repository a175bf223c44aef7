"""Streams that follow each other on one connection, against a server that sends what the test says."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from harness.waiting import until
from tokenwire.domain.errors import EngineError
from tokenwire.engines.exchange import Exchange as Connection
from tokenwire.engines.upstream import Upstream
from unit.engines.scripted_http import (
    LAST_CHUNK,
    STREAM_HEAD,
    Exchange,
    Script,
    ScriptedServer,
    always,
    chunk,
    reply,
    serving,
)

BODY: dict[str, Any] = {"prompt": "hi"}
WHOLE = chunk(b"data: a\n\ndata: [DONE]\n\n")
PAYLOADS = [b"a", b"[DONE]"]


@asynccontextmanager
async def upstream_of(script: Script) -> AsyncGenerator[tuple[Upstream, ScriptedServer]]:
    async with serving(script) as server:
        upstream = Upstream(server.url)
        try:
            yield upstream, server
        finally:
            await upstream.close()
            assert not len(upstream._idle)
        await server.until_open(0)


async def told(upstream: Upstream) -> list[bytes]:
    payloads: list[bytes] = []

    def read(some: list[bytes]) -> bool:
        payloads.extend(some)
        return payloads[-1] == b"[DONE]"

    await upstream.tell("/x", BODY, read)
    return payloads


async def pulled(upstream: Upstream) -> list[bytes]:
    async with aclosing(upstream.events("/x", BODY)) as reads:
        return [payload async for payloads in reads for payload in payloads]


def connections(server: ScriptedServer) -> list[int]:
    return [request.connection for request in server.requests]


both_ways = pytest.mark.parametrize("ask", [told, pulled])
Ask = Callable[[Upstream], Awaitable[list[bytes]]]


@pytest.mark.asyncio
@both_ways
async def test_streams_that_follow_each_other_share_a_connection(ask: Ask) -> None:
    async with upstream_of(always(STREAM_HEAD + WHOLE + LAST_CHUNK)) as (upstream, server):
        for _ in range(5):
            assert await ask(upstream) == PAYLOADS
        assert connections(server) == [1] * 5
        assert all("connection" not in request.headers for request in server.requests)


@pytest.mark.asyncio
async def test_streams_at_the_same_time_have_a_connection_each() -> None:
    release = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD)
        await release.wait()
        await exchange.write(WHOLE + LAST_CHUNK)

    async with upstream_of(script) as (upstream, server):
        streams = [asyncio.create_task(told(upstream)) for _ in range(3)]
        await until(lambda: len(server.requests) == 3, "every stream has begun")
        release.set()
        assert await asyncio.gather(*streams) == [PAYLOADS] * 3
        assert sorted(connections(server)) == [1, 2, 3]
        # Each of them waits for another stream.
        assert len(upstream._idle) == 3


@pytest.mark.asyncio
async def test_a_connection_serves_again_once_the_end_of_its_reply_has_come() -> None:
    end = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + WHOLE)
        if len(server.requests) == 1:
            await end.wait()
        await exchange.write(LAST_CHUNK)

    async with upstream_of(script) as (upstream, server):
        # The answer is whole before the reply has ended, and its reader does not wait for that.
        assert await told(upstream) == PAYLOADS
        assert await told(upstream) == PAYLOADS
        assert connections(server) == [1, 2]
        end.set()
        await until(lambda: all(one.ready for one in upstream._idle._since), "both replies have ended")
        await asyncio.gather(told(upstream), told(upstream))
        assert sorted(connections(server)[2:]) == [1, 2]


@pytest.mark.asyncio
async def test_a_refusal_that_was_read_to_its_end_leaves_a_connection_that_serves_again() -> None:
    async with upstream_of(always(reply(400, b"{}"))) as (upstream, server):
        for _ in range(2):
            with pytest.raises(EngineError):
                await told(upstream)
        assert connections(server) == [1, 1]


@pytest.mark.asyncio
@both_ways
@pytest.mark.parametrize(
    "answer",
    [
        STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + WHOLE + LAST_CHUNK,
        STREAM_HEAD.replace(b"transfer-encoding: chunked", b"content-length: 23").replace(b"1.1", b"1.0")
        + b"data: a\n\ndata: [DONE]\n\n",
        STREAM_HEAD + WHOLE + LAST_CHUNK + b"\r\nHTTP/1.1 200 OK\r\n",
        STREAM_HEAD + WHOLE + LAST_CHUNK + STREAM_HEAD + WHOLE + LAST_CHUNK,
    ],
    ids=["connection: close", "HTTP/1.0", "surplus bytes", "another reply"],
)
async def test_what_may_not_serve_again_is_closed(answer: bytes, ask: Ask) -> None:
    async with upstream_of(always(answer)) as (upstream, server):
        for _ in range(2):
            assert await ask(upstream) == PAYLOADS
            # At once: it does not even begin to wait.
            assert not len(upstream._idle)
            await server.until_open(0)
        assert connections(server) == [1, 2]


@pytest.mark.asyncio
async def test_a_stream_that_is_left_takes_its_connection_with_it() -> None:
    heard = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + chunk(b"data: a\n\n"))
        if exchange.connection == 1:
            await exchange.hung_up()
        else:
            await exchange.write(WHOLE + LAST_CHUNK)

    def read(payloads: list[bytes]) -> bool:
        heard.set()
        return False

    async with upstream_of(script) as (upstream, server):
        left = asyncio.create_task(upstream.tell("/x", BODY, read))
        await heard.wait()
        left.cancel()
        await asyncio.wait([left])
        await server.until_open(0)
        assert await told(upstream) == [b"a", *PAYLOADS]
        assert connections(server) == [1, 2]


@pytest.mark.asyncio
async def test_a_connection_that_the_server_closes_while_it_waits_is_not_used() -> None:
    close = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + WHOLE + LAST_CHUNK)
        if exchange.connection == 1:
            await close.wait()
            exchange.writer.close()

    async with upstream_of(script) as (upstream, server):
        assert await told(upstream) == PAYLOADS
        close.set()
        await until(lambda: not len(upstream._idle), "the connection is forgotten")
        assert await told(upstream) == PAYLOADS
        assert connections(server) == [1, 2]


async def hang_up(exchange: Exchange) -> None:
    exchange.writer.close()


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def begin_a_reply_and_hang_up(exchange: Exchange) -> None:
    await exchange.write(b"H")
    exchange.writer.close()


def breaking(end: Script, *, for_ever: bool) -> Script:
    """Answers the first request and breaks at the second one, or at each from then on."""
    seen: list[Exchange] = []

    async def script(exchange: Exchange) -> None:
        seen.append(exchange)
        if len(seen) == 2 or (for_ever and len(seen) > 2):
            await end(exchange)
        else:
            await exchange.write(STREAM_HEAD + WHOLE + LAST_CHUNK)

    return script


@pytest.mark.asyncio
@both_ways
@pytest.mark.parametrize("end", [hang_up, reset])
async def test_a_request_that_met_the_end_of_a_connection_that_waited_is_sent_again(end: Script, ask: Ask) -> None:
    async with upstream_of(breaking(end, for_ever=False)) as (upstream, server):
        for _ in range(3):
            assert await ask(upstream) == PAYLOADS
        assert connections(server) == [1, 1, 2, 2]
        assert [request.json for request in server.requests] == [BODY] * 4


@pytest.mark.asyncio
@both_ways
@pytest.mark.parametrize("end", [hang_up, reset])
async def test_a_request_is_sent_again_only_once(end: Script, ask: Ask) -> None:
    async with upstream_of(breaking(end, for_ever=True)) as (upstream, server):
        assert await ask(upstream) == PAYLOADS
        with pytest.raises(EngineError) as caught:
            await ask(upstream)
        assert caught.value.reason == "ENGINE_LOST"
        assert connections(server) == [1, 1, 2]


@pytest.mark.asyncio
@both_ways
async def test_a_server_that_hangs_up_after_each_reply_without_having_said_so_does_no_harm(ask: Ask) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + WHOLE + LAST_CHUNK)
        exchange.writer.close()

    async with upstream_of(script) as (upstream, _):
        for _ in range(30):
            assert await ask(upstream) == PAYLOADS


@pytest.mark.asyncio
@both_ways
async def test_a_request_is_not_sent_again_once_its_reply_has_begun(ask: Ask) -> None:
    async with upstream_of(breaking(begin_a_reply_and_hang_up, for_ever=True)) as (upstream, server):
        assert await ask(upstream) == PAYLOADS
        with pytest.raises(EngineError) as caught:
            await ask(upstream)
        assert caught.value.reason == "ENGINE_LOST"
        assert connections(server) == [1, 1]


@pytest.mark.asyncio
async def test_a_connection_that_waits_holds_nothing_of_its_last_stream() -> None:
    class Reader:
        def read(self, payloads: list[bytes]) -> bool:
            return payloads[-1] == b"[DONE]"

    async with upstream_of(always(STREAM_HEAD + WHOLE + LAST_CHUNK)) as (upstream, _):
        reader = Reader()
        gone = weakref.ref(reader)
        await upstream.tell("/x", BODY, reader.read)
        del reader
        gc.collect()
        assert gone() is None
        assert len(upstream._idle) == 1


@pytest.mark.asyncio
async def test_a_connection_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with upstream_of(always(STREAM_HEAD + WHOLE + LAST_CHUNK)) as (upstream, server):
            assert await told(upstream) == PAYLOADS
            await upstream.close()
            await server.until_open(0)
            await until(lambda: not any(type(one) is Connection for one in gc.get_objects()), "the connection is freed")
    finally:
        gc.enable()


@pytest.mark.asyncio
async def test_a_closed_engine_keeps_no_connection_of_a_stream_that_ends_later() -> None:
    release = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD)
        await release.wait()
        await exchange.write(WHOLE + LAST_CHUNK)

    async with upstream_of(script) as (upstream, server):
        stream = asyncio.create_task(told(upstream))
        await until(lambda: bool(server.requests), "the stream has begun")
        await upstream.close()
        release.set()
        assert await stream == PAYLOADS
        await server.until_open(0)
