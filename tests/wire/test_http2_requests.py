"""Requests to our own HTTP/2 as clients may make them: compressed, cut, with trailers, and such that are no gRPC."""

import zlib

import grpc
import pytest
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import HeadersFrame

from harness.attacked_http2 import MESSAGE_MAX_BYTES, WAIT, attacked
from harness.byte_calls import bidi_call, unary_call
from harness.raw_http2 import grpc_message, raw_http2
from harness.transports import BIDI, GATHER, STREAM, UNARY
from harness.waiting import until

INTERNAL, UNIMPLEMENTED, RESOURCE_EXHAUSTED = "13", "12", "8"


def packed(data: bytes, wbits: int) -> bytes:
    """Compresses data."""
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("end", [True, False])
async def test_what_is_not_posted_is_not_allowed(method: str, end: bool) -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        for _ in range(3):
            stream = await raw.request(UNARY, b"", http_method=method, end=end)
            told = await raw.answered(stream)
            assert told == {":status": "405"}
            if not end:
                # It knows nothing of the answer yet.
                trailers = raw._h2.encoder.encode([("x-end", "1")])
                await raw.send(HeadersFrame(stream, trailers, flags=["END_HEADERS", "END_STREAM"]))
        await server.serves(raw)
        assert server.started == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("method", [UNARY, GATHER, BIDI])
async def test_trailers_of_a_client_end_its_request(method: str) -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        stream = await raw.request(method, grpc_message(b"one"), end=False)
        await raw.flush()
        raw._h2.send_headers(stream, [("x-trailer", "1")], end_stream=True)
        await raw.flush()
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert raw.data[stream] == grpc_message(b"[3]" if method == GATHER else b"one")


@pytest.mark.asyncio
async def test_headers_in_mid_stream_that_end_nothing_end_the_connection() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        stream = await raw.request(STREAM, WAIT, end=False)
        await until(lambda: len(server.running) == 1, "the handler runs")
        await raw.send(HeadersFrame(stream, Encoder().encode([("x-again", "1")]), flags=["END_HEADERS"]))
        await raw.wait(lambda: raw.closed, "the connection is closed")
        assert raw.goaway == ErrorCodes.PROTOCOL_ERROR
        await until(lambda: not server.running, "the handler has ended")


@pytest.mark.asyncio
@pytest.mark.parametrize("method", [UNARY, STREAM])
@pytest.mark.parametrize("body", [b"", b"\x00\x00", grpc_message(b"half", length=5)], ids=["none", "prefix", "part"])
async def test_a_request_without_a_whole_message_is_answered_and_reaches_no_handler(method: str, body: bytes) -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        assert (await raw.answered(await raw.request(method, body)))["grpc-status"] == INTERNAL
        later = await raw.request(method, body, end=False)
        await raw.more(later, b"", end=True)
        assert (await raw.answered(later))["grpc-status"] == INTERNAL
        assert not server.started
        await server.serves(raw)


@pytest.mark.asyncio
async def test_a_stream_of_requests_that_ends_in_the_middle_of_one_is_no_whole_stream() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        stream = await raw.request(GATHER, grpc_message(b"one") + grpc_message(b"two")[:-1])
        assert (await raw.answered(stream))["grpc-status"] == INTERNAL
        # None at all is one.
        empty = await raw.request(GATHER, b"")
        assert (await raw.answered(empty))["grpc-status"] == "0"
        assert raw.data[empty] == grpc_message(b"[]")


@pytest.mark.asyncio
async def test_a_request_beyond_what_a_message_may_be_is_refused_in_mid_stream_too() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        stream = await raw.request(BIDI, grpc_message(b"fine"), end=False)
        await raw.wait(lambda: raw.data[stream] == grpc_message(b"fine"), "it is answered")
        await raw.more(stream, grpc_message(b"", length=MESSAGE_MAX_BYTES + 1), end=False)
        assert (await raw.answered(stream))["grpc-status"] == RESOURCE_EXHAUSTED
        await until(lambda: not server.running, "the handler has ended")
        await server.serves(raw)


@pytest.mark.asyncio
async def test_a_timeout_that_is_none_is_refused_and_the_longest_one_is_fine() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        for text in ("1", "S", "", "-1S", "1.5S", "123456789S", "1s", "\u0661S"):
            stream = await raw.request(UNARY, grpc_message(b""), headers=[("grpc-timeout", text)])
            assert (await raw.answered(stream))["grpc-status"] == INTERNAL, text
        assert not server.started
        for text in ("99999999H", "99999999M", "00000020S", "20000m", "99999999u"):
            stream = await raw.request(UNARY, grpc_message(b""), headers=[("grpc-timeout", text)])
            assert (await raw.answered(stream))["grpc-status"] == "0", text
        for text in ("0S", "0n", "1n"):
            stream = await raw.request(STREAM, WAIT, headers=[("grpc-timeout", text)])
            assert (await raw.answered(stream))["grpc-status"] == "4", text


@pytest.mark.asyncio
@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15)])
async def test_compressed_requests_beside_those_that_are_not(encoding: str, wbits: int) -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        body = b"".join(
            grpc_message(packed(data, wbits), compressed=True) + grpc_message(data)
            for data in (b"", b"text" * 1000, bytes(50_000))
        )
        stream = await raw.request(GATHER, body[:100], headers=[("grpc-encoding", encoding)], end=False)
        for start in range(100, len(body), 16_000):
            await raw.wait(lambda: raw._h2.local_flow_control_window(stream) >= 16_000, "the server takes more")
            await raw.more(stream, body[start : start + 16_000], end=start + 16_000 >= len(body))
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert raw.data[stream] == grpc_message(b"[0, 0, 4000, 4000, 50000, 50000]")


@pytest.mark.asyncio
@pytest.mark.parametrize("encoding", ["snappy", "identity", "", "GZIP"])
async def test_compression_that_is_not_known_is_refused_where_it_is_used(encoding: str) -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        headers = [("grpc-encoding", encoding)]
        told = await raw.answered(await raw.request(UNARY, grpc_message(b"x", compressed=True), headers=headers))
        assert told["grpc-status"] in (UNIMPLEMENTED, INTERNAL)
        assert set(told.get("grpc-accept-encoding", "").split(",")) == {"gzip", "deflate"}
        plain = await raw.request(UNARY, grpc_message(b"x"), headers=headers)
        assert (await raw.answered(plain))["grpc-status"] == "0"


@pytest.mark.asyncio
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_real_client_may_compress(compression: grpc.Compression) -> None:
    large = b"much of the same " * 100_000
    async with (
        attacked(real_clients=True) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", compression=compression) as channel,
    ):
        assert await unary_call(channel, UNARY)(large) == large

        call = bidi_call(channel, BIDI)(iter([large, b"", b"x"]))
        assert [answer async for answer in call] == [large, b"", b"x"]


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, 65_530, 65_531, MESSAGE_MAX_BYTES])
async def test_messages_of_all_sizes_go_both_ways_between_us_and_a_real_client(size: int) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    data = bytes(number % 249 for number in range(min(size, 100_000))) * (size // 100_000 + 1)
    async with (
        attacked(real_clients=True) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel,
    ):
        assert await unary_call(channel, UNARY)(data[:size]) == data[:size]
        call = bidi_call(channel, BIDI)(iter([data[:size]] * 3))
        assert [answer async for answer in call] == [data[:size]] * 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary_call(channel, UNARY)(bytes(MESSAGE_MAX_BYTES + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
