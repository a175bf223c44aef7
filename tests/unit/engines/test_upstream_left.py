"""Streams from an engine that are left, many at a time, against a server that sends what the test says."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from tokenwire.engines.upstream import Upstream
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, Script, ScriptedServer, always, chunk, serving

BODY: dict[str, Any] = {"prompt": "hi"}


@asynccontextmanager
async def upstream_of(script: Script) -> AsyncGenerator[tuple[Upstream, ScriptedServer], None]:
    async with serving(script) as server:
        upstream = Upstream(server.url)
        try:
            yield upstream, server
        finally:
            await upstream.close()


async def pulled(upstream: Upstream) -> list[bytes]:
    async with aclosing(upstream.events("/x", BODY)) as reads:
        return [payload async for payloads in reads for payload in payloads]


@pytest.mark.asyncio
async def test_closing_the_generator_closes_the_connection() -> None:
    hung_up = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + chunk(b"data: a\n\n"))
        await exchange.hung_up()
        hung_up.set()

    async with upstream_of(script) as (upstream, server):
        reads = upstream.events("/x", BODY)
        assert await anext(reads) == [b"a"]
        await reads.aclose()
        await hung_up.wait()
        await server.until_open(0)


@pytest.mark.asyncio
async def test_closing_does_not_wait_for_a_request_that_nobody_reads() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.hung_up()

    async def serve_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(STREAM_HEAD + chunk(b"data: a\n\n"))
        await closed.wait()
        writer.transport.abort()

    closed = asyncio.Event()
    server = await asyncio.start_server(serve_unread, "127.0.0.1", 0)
    upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        reads = upstream.events("/x", {"prompt": "x" * 32_000_000})
        assert await anext(reads) == [b"a"]
        await reads.aclose()
    finally:
        closed.set()
        await upstream.close()
        server.close()
        await server.wait_closed()


@pytest.mark.asyncio
async def test_more_streams_than_any_default_limit_run_at_once() -> None:
    release = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + chunk(b"data: a\n\n"))
        await release.wait()
        await exchange.write(chunk(b"data: b\n\n") + LAST_CHUNK)

    async with upstream_of(script) as (upstream, _):
        streams = [upstream.events("/x", BODY) for _ in range(150)]
        assert await asyncio.gather(*(anext(reads) for reads in streams)) == [[b"a"]] * 150
        release.set()
        assert await asyncio.gather(*(anext(reads) for reads in streams)) == [[b"b"]] * 150
        for reads in streams:
            await reads.aclose()


@pytest.mark.asyncio
async def test_after_randomly_cancelled_streams_the_next_one_works_and_none_is_left_open() -> None:
    dice = random.Random(20261120)

    async def endless(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD)
        while True:
            await exchange.write(chunk(b"data: a\n\n"))
            await asyncio.sleep(0)

    async def cancelled_somewhere(upstream: Upstream) -> None:
        stream = asyncio.create_task(pulled(upstream))
        # Turns of the loop, not time: the cancel falls into connecting, sending, waiting or reading.
        for _ in range(dice.randrange(40)):
            await asyncio.sleep(0)
        stream.cancel()
        with suppress(asyncio.CancelledError):
            await stream

    async with upstream_of(endless) as (upstream, server):
        for _ in range(30):
            await asyncio.gather(*(cancelled_somewhere(upstream) for _ in range(10)))
        assert len(server.requests) > 30
        server.script = always(STREAM_HEAD + chunk(b"data: last\n\n") + LAST_CHUNK)
        assert await pulled(upstream) == [b"last"]
        # The last one's connection may wait for another request.
        await server.until_open(1)
        await upstream.close()
        await server.until_open(0)
