"""Our own HTTP/2 when somebody leaves: a client in mid-stream, a server that drains, a connection that is nobody's."""

import asyncio
import socket
import struct
from typing import Any

import grpc
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame, SettingsFrame
from hyperframe.frame import WindowUpdateFrame as WindowUpdate

from harness.attacked_http2 import WAIT, Attacked, attacked, several, stream_of
from harness.byte_calls import stream_call, unary_call
from harness.http2_in_memory import PREFACE
from harness.raw_http2 import RawHttp2, grpc_message, raw_http2
from harness.transports import BIDI, STREAM, UNARY
from harness.waiting import until
from tokenwire.transport.call import Call, ClientGoneError, Requests

LARGEST_WINDOW = 2**31 - 1


async def half_way(raw: RawHttp2) -> int:
    """Starts a stream and waits until its window is full."""
    stream = await raw.request(STREAM, several(10, 1000))
    await raw.exhausted(stream)
    return stream


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Waits until the server closes a connection, and returns what it sent."""
    async with asyncio.timeout(20):
        try:
            data = await reader.read()
        except ConnectionError:
            data = b""
    writer.close()
    return data


# The client.


@pytest.mark.asyncio
@pytest.mark.parametrize("last", [0, LARGEST_WINDOW])
async def test_a_client_that_says_goodbye_gets_the_rest_of_its_streams(last: int) -> None:
    async with attacked() as server, raw_http2(server.port, window=2000) as raw:
        streams = [await half_way(raw) for _ in range(2)]
        await raw.send(GoAwayFrame(0, last_stream_id=last, error_code=ErrorCodes.NO_ERROR))
        await raw.opened(20_000)
        for stream in streams:
            await raw.opened(20_000, stream)
            assert (await raw.answered(stream))["grpc-status"] == "0"
            assert raw.data[stream] == stream_of(10, 1000)


@pytest.mark.asyncio
async def test_a_request_and_its_reset_in_one_segment_reach_no_handler() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        for method in (UNARY, STREAM, BIDI, "/nothing.Nothing/Nothing"):
            for end in (True, False):
                await raw.reset(await raw.request(method, WAIT, end=end, flush=False))
        await server.serves(raw)
        assert server.started == 1


@pytest.mark.asyncio
async def test_what_comes_right_before_a_reset_is_of_no_use_any_more() -> None:
    async with attacked() as server, raw_http2(server.port, window=2000) as raw:
        for number in range(4):
            stream = await raw.request(STREAM, several(10, 1000), end=False)
            await raw.exhausted(stream)
            behind = [
                WindowUpdate(stream, window_increment=50_000),
                DataFrame(stream, b"more"),
                DataFrame(stream, b"", flags=["END_STREAM"]),
            ][: number % 4]
            await raw.send(*behind, RstStreamFrame(stream, ErrorCodes.CANCEL))
            await until(lambda: not server.running, "the handler has ended")
            assert len(raw.data[stream]) == 2000
        await server.serves(raw)


@pytest.mark.asyncio
async def test_frames_behind_a_reset_are_of_no_use_either() -> None:
    async with attacked() as server, raw_http2(server.port, window=2000) as raw:
        stream = await raw.request(STREAM, several(10, 1000), end=False)
        await raw.exhausted(stream)
        reset = RstStreamFrame(stream, ErrorCodes.CANCEL)
        await raw.send(reset, reset, WindowUpdate(stream, window_increment=50_000), DataFrame(stream, b"more"))
        await until(lambda: not server.running, "the handler has ended")
        await server.serves(raw)


@pytest.mark.asyncio
async def test_writes_after_the_client_broke_the_protocol_say_that_it_is_gone() -> None:
    told: list[BaseException | None] = []
    inside = asyncio.Event()

    async def stubborn(request: Any, call: Call) -> None:
        call.begin_write(b"x" * 5000, told.append)
        inside.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            call.begin_write(b"late", told.append)
            with pytest.raises(ClientGoneError):
                await call.write(b"later")

    async with attacked({STREAM: stubborn}) as server, raw_http2(server.port, window=100) as raw:
        await raw.request(STREAM)
        await inside.wait()
        assert not told
        await raw.send(SettingsFrame(0, {4: LARGEST_WINDOW + 1}))
        await until(lambda: not server.running, "the handler has ended")
        assert [type(one) for one in told] == [ClientGoneError, ClientGoneError]


@pytest.mark.asyncio
async def test_whoever_reads_requests_beside_the_handler_comes_to_their_end_when_the_client_is_gone() -> None:
    read: list[bytes] = []
    begun = asyncio.Event()

    async def beside(requests: Requests, call: Call) -> None:
        async def reads() -> None:
            async for request in requests:
                read.append(request)
                begun.set()

        reading = asyncio.ensure_future(reads())
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait([reading])

    async with attacked({BIDI: beside}) as server, raw_http2(server.port) as raw:
        stream = await raw.request(BIDI, grpc_message(b"one"), end=False)
        await begun.wait()
        await raw.reset(stream)
        await until(lambda: not server.running, "both have ended")
        assert read == [b"one"]


# The server.


@pytest.mark.asyncio
async def test_a_drain_in_mid_stream_refuses_what_comes_and_closes_after_the_last() -> None:
    async with attacked() as server, raw_http2(server.port, window=2000) as raw:
        streams = [await half_way(raw) for _ in range(2)]
        stopping = asyncio.ensure_future(server.server.stop(20))
        await raw.wait(lambda: raw.goaway is not None, "it is told")
        assert raw.goaway == ErrorCodes.NO_ERROR
        # One that was on its way, and so is safe to be tried elsewhere.
        refused = await raw.request(UNARY)
        await raw.answered(refused)
        assert raw.resets[refused] == ErrorCodes.REFUSED_STREAM
        for stream in streams:
            assert not raw.closed
            await raw.opened(20_000, stream)
            assert (await raw.answered(stream))["grpc-status"] == "0"
            assert raw.data[stream] == stream_of(10, 1000)
        await raw.wait(lambda: raw.closed, "the connection is closed")
    await stopping


@pytest.mark.asyncio
async def test_a_drain_takes_nothing_back_of_what_is_on_its_way() -> None:
    count, size = 32, 64 * 1024
    async with attacked() as server, raw_http2(server.port, window=LARGEST_WINDOW) as raw:
        await raw.opened(LARGEST_WINDOW - 65_535)
        raw.stop_reading()
        stream = await raw.request(STREAM, several(count, size))
        # All is with the kernel, and most of it not with the client yet.
        await until(lambda: server.started == 1 and not server.running, "all is written")
        (connection,) = server.server._clients.connections
        assert not connection.transport.get_write_buffer_size()
        stopping = asyncio.ensure_future(server.server.stop(20))
        await until(lambda: connection._closing, "the connection is about to be closed")
        # A socket that is closed already would answer it with a reset.
        connection._heard = False
        await raw.ping(1)
        await until(lambda: connection._heard, "what the client still sends is read")
        raw.read_on()
        assert (await raw.answered(stream)).get("grpc-status") == "0"
        assert raw.data[stream] == stream_of(count, size)
        await raw.wait(lambda: raw.closed, "the connection is closed")
    await stopping


@pytest.mark.asyncio
async def test_a_drain_does_not_wait_for_a_client_that_keeps_its_side_open() -> None:
    async with attacked(ping_timeout_seconds=0.1) as server, raw_http2(server.port) as raw:
        await server.serves(raw)
        await server.server.stop(20)
        assert not server.connections


@pytest.mark.asyncio
async def test_calls_that_outlive_a_drain_get_its_status_before_their_connection_is_closed() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        stream = await raw.request(STREAM, WAIT)
        await until(lambda: len(server.running) == 1, "the handler runs")
        stopping = asyncio.ensure_future(server.server.stop(0))
        assert (await raw.answered(stream))["grpc-status"] == "14"
        await raw.wait(lambda: raw.closed, "the connection is closed")
    await stopping


# Connections without calls.


@pytest.mark.asyncio
async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with attacked(keepalive_seconds=0.1, ping_timeout_seconds=0.1) as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        # One of them only begins.
        silent[1][1].write(b"PRI * HTT")
        for reader, writer in silent:
            await closed(reader, writer)


@pytest.mark.asyncio
async def test_a_client_that_answers_pings_is_kept() -> None:
    async with attacked(keepalive_seconds=0.05, ping_timeout_seconds=0.2) as server, raw_http2(server.port) as raw:
        acknowledged = 0

        def count(event: object) -> None:
            nonlocal acknowledged
            acknowledged += type(event).__name__ == "PingReceived"

        raw._take = count  # type: ignore[method-assign]
        await raw.wait(lambda: acknowledged >= 4, "it has been asked")
        assert server.connections == 1


@pytest.mark.asyncio
async def test_one_connection_too_many_is_closed_at_once_and_those_that_are_there_serve_on() -> None:
    async with attacked(connections_max=2) as server:
        async with raw_http2(server.port) as first, raw_http2(server.port) as second:
            assert not await closed(*await asyncio.open_connection("127.0.0.1", server.port))
            await server.serves(first)
            await server.serves(second)
        await until(lambda: not server.connections, "they have gone")
        # Room for others again.
        await server.serves()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "last", [b"", b"noise" * 20, PREFACE + b"\xff" * 20, PREFACE], ids=["", "noise", "bad", "good"]
)
async def test_connections_that_are_torn_down_by_their_clients_leave_nothing(last: bytes) -> None:
    async with attacked() as server:
        for number in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(last)
            if number % 3:
                await asyncio.sleep(0)
            # The kernel says it with a reset.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await until(lambda: not server.connections, "no connection is left")


# Real clients.


def _channel(server: Attacked, **options: Any) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", **options)


@pytest.mark.asyncio
async def test_a_deadline_of_a_real_client_ends_its_handler() -> None:
    async with attacked(real_clients=True) as server, _channel(server) as channel:
        call = stream_call(channel, STREAM)(b"wait", timeout=0.2)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: not server.running, "the handler has ended")
        assert server.started == 1


@pytest.mark.asyncio
async def test_real_clients_that_cancel_leave_nothing() -> None:
    async with attacked(real_clients=True) as server, _channel(server) as channel:
        calls = [stream_call(channel, STREAM)(b"wait") for _ in range(50)]
        await until(lambda: len(server.running) == 50, "the handlers run")
        for call in calls:
            call.cancel()
        await until(lambda: not server.running, "they have ended")
        assert await unary_call(channel, UNARY)(b"good") == b"good"
