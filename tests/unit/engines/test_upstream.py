"""HTTP to an engine, against a server that sends what the test says."""

import asyncio
import gzip
import socket
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from tokenwire.domain.errors import Code, EngineError
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

CANARY = "canary-5f0c"
BODY: dict[str, Any] = {"prompt": CANARY, "logit_bias": {"7": 1.5}}


@asynccontextmanager
async def _upstream(script: Script, **options: Any) -> AsyncGenerator[tuple[Upstream, ScriptedServer], None]:
    async with serving(script) as server:
        upstream = Upstream(server.url, **options)
        try:
            yield upstream, server
        finally:
            await upstream.close()


async def _payloads(upstream: Upstream) -> list[bytes]:
    """Reads a stream in both ways, which have to agree."""
    pulled = await _outcome(_pulled(upstream))
    told = await _outcome(_told(upstream))
    assert told == pulled
    return await _told(upstream)


async def _pulled(upstream: Upstream) -> list[bytes]:
    async with aclosing(upstream.events("/v1/completions", BODY)) as reads:
        return [payload async for payloads in reads for payload in payloads]


async def _told(upstream: Upstream) -> list[bytes]:
    told: list[bytes] = []

    def read(payloads: list[bytes]) -> bool:
        told.extend(payloads)
        return False

    await upstream.tell("/v1/completions", BODY, read)
    return told


async def _outcome(reading: Awaitable[list[bytes]]) -> object:
    try:
        return await reading
    except EngineError as error:
        return error.code, error.reason, error.retry_after


async def _refused(call: Awaitable[object]) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await call
    assert CANARY not in f"{caught.value} {caught.value.metadata}"
    return caught.value


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.mark.asyncio
async def test_a_request_arrives_as_it_was_given() -> None:
    answer = STREAM_HEAD + chunk(b"data: a\n\ndata: b\n\n") + LAST_CHUNK
    async with _upstream(always(answer), api_key="secret") as (upstream, server):
        assert await _payloads(upstream) == [b"a", b"b"]
        request = server.requests[0]
        assert (request.method, request.path, request.json) == ("POST", "/v1/completions", BODY)
        assert request.headers["authorization"] == "Bearer secret"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"


@pytest.mark.asyncio
async def test_a_large_request_arrives_whole_and_with_its_length() -> None:
    large = {"prompt": list(range(400_000))}
    async with _upstream(always(reply(200, b"{}"))) as (upstream, server):
        await upstream.post("/tokenize", large)
        assert server.requests[0].json == large
        assert "transfer-encoding" not in server.requests[0].headers


@pytest.mark.asyncio
async def test_payloads_are_whole_when_bytes_come_one_by_one() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD)
        for byte in "data: é\r\n\r\ndata: b\n\n".encode():
            await exchange.write(chunk(bytes([byte])))
        await exchange.write(LAST_CHUNK)

    async with _upstream(script) as (upstream, _):
        assert await _payloads(upstream) == ["é".encode(), b"b"]


@pytest.mark.asyncio
async def test_plain_replies_are_decoded() -> None:
    async with _upstream(always(reply(200, b'{"a":[1]}'))) as (upstream, server):
        assert await upstream.get("/v1/models") == {"a": [1]}
        assert await upstream.post("/tokenize", BODY) == {"a": [1]}
        assert [request.method for request in server.requests] == ["GET", "POST"]
        assert server.requests[1].json == BODY


@pytest.mark.asyncio
async def test_text_is_returned_as_it_is() -> None:
    async with _upstream(always(reply(200, "a é\n".encode(), content_type="text/plain"))) as (upstream, _):
        assert await upstream.text("/metrics") == "a é\n"


@pytest.mark.asyncio
async def test_an_empty_reply_is_none() -> None:
    async with _upstream(always(reply(200, b""))) as (upstream, _):
        assert await upstream.get("/health") is None


@pytest.mark.asyncio
async def test_a_refused_connection_is_an_unreachable_engine() -> None:
    upstream = Upstream(f"http://127.0.0.1:{_free_port()}")
    try:
        for call in (_payloads(upstream), upstream.get("/v1/models")):
            error = await _refused(call)
            assert (error.code, error.reason, error.retryable) == (Code.UNAVAILABLE, "ENGINE_UNREACHABLE", True)
    finally:
        await upstream.close()


@pytest.mark.asyncio
async def test_a_server_that_hangs_up_without_an_answer_is_a_lost_engine() -> None:
    async def script(exchange: Exchange) -> None:
        exchange.reset()

    async with _upstream(script) as (upstream, _):
        for call in (_payloads(upstream), upstream.post("/tokenize", BODY)):
            assert (await _refused(call)).reason == "ENGINE_LOST"


async def _close(exchange: Exchange) -> None:
    exchange.writer.close()


async def _reset(exchange: Exchange) -> None:
    exchange.reset()


async def _half_a_chunk(exchange: Exchange) -> None:
    await exchange.write(b"ff\r\ndata: b")
    exchange.writer.close()


async def _half_an_event(exchange: Exchange) -> None:
    await exchange.write(chunk(b"data: b\n") + LAST_CHUNK)


async def _bad_framing(exchange: Exchange) -> None:
    await exchange.write(b"nonsense\r\n")


@pytest.mark.asyncio
@pytest.mark.parametrize("end", [_close, _reset, _half_a_chunk, _half_an_event, _bad_framing])
async def test_a_stream_that_breaks_off_is_never_a_normal_end(end: Script) -> None:
    read = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + chunk(b"data: a\n\n"))
        await read.wait()
        await end(exchange)

    async with _upstream(script) as (upstream, _):
        payloads: list[bytes] = []

        async def consume() -> None:
            async with aclosing(upstream.events("/x", BODY)) as reads:
                async for part in reads:
                    payloads.extend(part)
                    read.set()

        error = await _refused(consume())
        assert (error.code, error.reason, error.retryable) == (Code.UNAVAILABLE, "ENGINE_LOST", True)
        assert payloads == [b"a"]


@pytest.mark.asyncio
async def test_a_stream_that_stops_between_events_ends_as_the_caller_decides() -> None:
    async with _upstream(always(STREAM_HEAD + chunk(b"data: a\n\n") + LAST_CHUNK)) as (upstream, _):
        assert await _payloads(upstream) == [b"a"]


@pytest.mark.asyncio
async def test_a_redirect_is_not_followed() -> None:
    async with serving(always(reply(200, b"{}"))) as elsewhere:
        answer = reply(302, b"", f"location: {elsewhere.url}/stolen")
        async with _upstream(always(answer), api_key="secret") as (upstream, server):
            for call in (_payloads(upstream), upstream.get("/v1/models")):
                error = await _refused(call)
                assert (error.code, error.reason) == (Code.UNAVAILABLE, "UPSTREAM_PROTOCOL")
            assert len(server.requests) == 4
        assert not elsewhere.requests


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"<html>data: a\n\n</html>", content_type="text/html"),
        reply(200, b'{"choices":[]}'),
        reply(200, b"data: a\n\n", content_type=""),
        reply(200, gzip.compress(b"data: a\n\n"), "content-encoding: gzip", content_type="text/event-stream"),
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
async def test_what_is_no_stream_is_refused(answer: bytes) -> None:
    async with _upstream(always(answer)) as (upstream, _):
        error = await _refused(_payloads(upstream))
        assert (error.code, error.reason) == (Code.UNAVAILABLE, "UPSTREAM_PROTOCOL")


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"<html>", b'{"a":', b'"\xff"', b"[" * 100_000])
async def test_what_is_no_json_is_refused(body: bytes) -> None:
    async with _upstream(always(reply(200, body))) as (upstream, _):
        assert (await _refused(upstream.get("/v1/models"))).reason == "UPSTREAM_PROTOCOL"


@pytest.mark.asyncio
async def test_a_refusal_carries_its_retry_after() -> None:
    body = b'{"error":{"message":"slow down ' + CANARY.encode() + b'"}}'
    async with _upstream(always(reply(429, body, "retry-after: 3"))) as (upstream, _):
        for call in (_payloads(upstream), upstream.get("/v1/models")):
            error = await _refused(call)
            assert (error.code, error.retry_after) == (Code.RESOURCE_EXHAUSTED, 3.0)


@pytest.mark.asyncio
async def test_a_retry_after_date_counts_from_the_given_clock() -> None:
    answer = reply(503, b"", "retry-after: Wed, 21 Oct 2026 07:28:30 GMT")
    async with _upstream(always(answer), wall=lambda: 1_792_567_680.0) as (upstream, _):
        assert (await _refused(upstream.get("/x"))).retry_after == 30.0


@pytest.mark.asyncio
async def test_an_endless_error_body_is_not_read_to_its_end() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 400 Bad\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await exchange.write(chunk(b"x" * 65536))

    async with _upstream(script) as (upstream, server):
        assert (await _refused(_payloads(upstream))).reason == "ENGINE_REFUSED"
        await server.until_open(0)


@pytest.mark.asyncio
async def test_a_plain_reply_that_only_trickles_is_given_up() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        hung_up = asyncio.ensure_future(exchange.hung_up())
        while not hung_up.done():
            exchange.writer.write(chunk(b" "))
            await asyncio.wait((hung_up,), timeout=0.01)

    async with _upstream(script, reply_timeout=0.1) as (upstream, server):
        error = await _refused(upstream.get("/v1/models"))
        assert (error.code, error.reason, error.retryable) == (Code.UNAVAILABLE, "ENGINE_SILENT", True)
        await server.until_open(0)


@pytest.mark.asyncio
async def test_a_whole_answer_of_a_model_may_take_its_time() -> None:
    patient: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def script(exchange: Exchange) -> None:
        if exchange.path == "/patient":
            await patient
            await exchange.write(reply(200, b"1"))
        else:
            await exchange.hung_up()

    async with _upstream(script, reply_timeout=0.05) as (upstream, _):
        whole = asyncio.create_task(upstream.post("/patient", BODY, patient=True))
        assert (await _refused(upstream.post("/hasty", BODY))).reason == "ENGINE_SILENT"
        patient.set_result(None)
        assert await whole == 1


@pytest.mark.asyncio
async def test_plain_replies_share_a_connection() -> None:
    async with _upstream(always(reply(200, b"{}"))) as (upstream, server):
        await upstream.get("/a")
        await upstream.get("/b")
        assert server.requests[0].connection == server.requests[1].connection


@pytest.mark.asyncio
async def test_cookies_of_one_answer_do_not_reach_the_next_request() -> None:
    answer = reply(200, b"{}", "set-cookie: session=abc; path=/")
    async with _upstream(always(answer)) as (upstream, server):
        await upstream.get("/a")
        await upstream.get("/b")
        assert "cookie" not in server.requests[1].headers
