"""How much our own HTTP/2 writes, and when: windows, frames, and clients that do not read."""

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

from harness.attacked_http2 import WAIT, Attacked, attacked, several, stream_of
from harness.raw_http2 import RawHttp2, grpc_message, raw_http2
from harness.transports import GATHER, STREAM
from harness.waiting import until
from tokenwire.transport.call import Call, Requests

LARGEST_WINDOW = 2**31 - 1
KIB = 1024


async def wide(raw: RawHttp2) -> None:
    """Opens the connection's window as wide as it goes: what holds a stream back is its own."""
    await raw.opened(LARGEST_WINDOW - 65_535)


async def stuck(server: Attacked, raw: RawHttp2, count: int, size: int) -> int:
    """Starts a stream and leaves it in the socket until its writer waits."""
    raw.stop_reading()
    stream = await raw.request(STREAM, several(count, size))
    await until(lambda: any(one.paused for one in server.server._clients.connections), "the socket takes no more")
    return stream


@pytest.mark.asyncio
async def test_a_client_that_does_not_read_its_socket_stops_its_writers_alone_and_gets_all_of_it_later() -> None:
    count, size = 300, 64 * KIB
    async with attacked() as server, raw_http2(server.port, window=LARGEST_WINDOW) as raw:
        await wide(raw)
        stream = await stuck(server, raw, count, size)
        (call,) = server.running
        written = call.messages
        assert 0 < written < count
        # Also what would be answered at once: nothing is read any more.
        more = await raw.request(STREAM, several(10, 10))
        await server.serves()
        assert (call.messages, server.started) == (written, 2), "a writer that waits goes on"
        raw.read_on()
        for one in (stream, more):
            assert (await raw.answered(one))["grpc-status"] == "0"
        assert raw.data[stream] == stream_of(count, size)
        assert raw.data[more] == stream_of(10, 10)


@pytest.mark.asyncio
async def test_what_a_full_socket_holds_is_known_and_becomes_less_when_the_client_reads() -> None:
    async with attacked() as server, raw_http2(server.port, window=LARGEST_WINDOW) as raw:
        await wide(raw)
        stream = await stuck(server, raw, 300, 64 * KIB)
        (connection,) = server.server._clients.connections
        await until(lambda: connection._held() > 64 * KIB, "it holds much")
        raw.read_on()
        await raw.answered(stream)
        await until(lambda: connection._held() == 0, "it holds nothing")


@pytest.mark.asyncio
async def test_a_client_that_never_reads_its_socket_again_is_gone_after_the_keepalive() -> None:
    async with (
        attacked(keepalive_seconds=0.1, ping_timeout_seconds=0.1) as server,
        raw_http2(server.port, window=LARGEST_WINDOW) as raw,
    ):
        await wide(raw)
        await stuck(server, raw, 1000, 64 * KIB)
        await until(lambda: not server.running, "the handler has ended")
        await until(lambda: not server.connections, "the connection is closed")


@pytest.mark.asyncio
async def test_a_client_that_breaks_the_protocol_and_reads_nothing_holds_neither_handlers_nor_its_connection() -> None:
    async with (
        attacked(ping_timeout_seconds=0.2) as server,
        raw_http2(server.port, window=LARGEST_WINDOW) as raw,
    ):
        await wide(raw)
        raw.stop_reading()
        # Less than makes the server read no more, and more than the kernel takes.
        waiting = await raw.request(STREAM, WAIT)
        (connection,) = server.server._clients.connections
        while not connection.transport.get_write_buffer_size():
            await raw.request(STREAM, several(1, 16 * KIB))
            await asyncio.sleep(0)
        await until(lambda: len(server.running) == 1, "one handler waits")
        assert not connection.paused
        await raw.send(DataFrame(waiting + 1000, b"no such stream"))
        await until(lambda: not server.running, "it has ended")
        await until(lambda: not server.connections, "the connection is closed")


@pytest.mark.asyncio
async def test_windows_that_grow_shrink_and_become_negative_in_the_middle_of_a_stream_are_kept_to_the_byte() -> None:
    count, size = 40, 999
    async with attacked() as server, raw_http2(server.port, window=5000) as raw:
        streams = [await raw.request(STREAM, several(count, size)) for _ in range(3)]
        for stream in streams:
            await raw.exhausted(stream)
        # They owe 4000 bytes each now.
        await raw.settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        for stream in streams:
            await raw.opened(3999, stream)
            await raw.opened(1, stream)
        await server.serves(raw)
        assert {len(raw.data[stream]) for stream in streams} == {5000}
        for stream in streams:
            await raw.opened(1, stream)
        await raw.wait(lambda: {len(raw.data[stream]) for stream in streams} == {5001}, "a byte has come")
        # More than there is, and in one go for all of them.
        await raw.settings({SettingCodes.INITIAL_WINDOW_SIZE: 60_000})
        await raw.opened(100_000)
        for stream in streams:
            assert (await raw.answered(stream))["grpc-status"] == "0"
            assert raw.data[stream] == stream_of(count, size)


@pytest.mark.asyncio
@pytest.mark.parametrize(("largest", "length"), [(16_384, 16_384), (2**20, 50_005), (2**24 - 1, 50_005)])
async def test_frames_are_as_long_as_the_client_takes_them(largest: int, length: int) -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        await raw.settings({SettingCodes.MAX_FRAME_SIZE: largest})
        stream = await raw.request(STREAM, several(1, 50_000))
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert raw.data[stream] == stream_of(1, 50_000)
        assert raw.largest_frame == length


@pytest.mark.asyncio
async def test_of_those_that_wait_for_the_connections_window_each_gets_its_turn() -> None:
    size = 8 * KIB - 5
    async with attacked() as server, raw_http2(server.port, window=LARGEST_WINDOW) as raw:
        streams = [await raw.request(STREAM, several(1000, size)) for _ in range(8)]
        await raw.wait(lambda: sum(map(len, raw.data.values())) == 65_535, "the connection's window is full")
        await until(lambda: all(call.messages for call in server.running) or len(server.running) == 8, "all write")
        at_first = {stream: len(raw.data[stream]) for stream in streams}
        # As much as one message each time: it could always be the same one's.
        for _ in range(2 * len(streams)):
            sent = sum(map(len, raw.data.values()))
            await raw.opened(8 * KIB)
            await raw.wait(lambda: sum(map(len, raw.data.values())) == sent + 8 * KIB, "it has come")  # noqa: B023
            await asyncio.sleep(0)
        assert all(len(raw.data[stream]) > at_first[stream] for stream in streams)


@pytest.mark.asyncio
async def test_a_message_that_is_larger_than_the_connections_window_and_small_ones_beside_it_arrive_whole() -> None:
    async with attacked() as server, raw_http2(server.port, window=LARGEST_WINDOW) as raw:
        large = await raw.request(STREAM, several(2, 500 * KIB))
        await raw.wait(lambda: len(raw.data[large]) == 65_535, "the connection's window is full")
        small = [await raw.request(STREAM, several(3, 100)) for _ in range(20)]
        while not raw.ended.issuperset(small):
            sent = sum(map(len, raw.data.values()))
            await raw.opened(10_000)
            await raw.wait(lambda: sum(map(len, raw.data.values())) > sent, "more has come")  # noqa: B023
        # They did not wait for all of the large one.
        assert large not in raw.ended
        await raw.opened(4 * 1024 * KIB)
        assert (await raw.answered(large))["grpc-status"] == "0"
        assert raw.data[large] == stream_of(2, 500 * KIB)
        assert all(raw.data[stream] == stream_of(3, 100) for stream in small)


@pytest.mark.asyncio
@pytest.mark.parametrize("ending", [b"", grpc_message(b"half", length=100), b"\x00"], ids=["end", "part", "prefix"])
async def test_what_a_client_sends_while_its_answer_waits_takes_nothing_of_it_away(ending: bytes) -> None:
    async def first(requests: Requests, call: Call) -> bytes:
        message: bytes = await anext(requests)
        return message * 400

    async with attacked({GATHER: first}) as server, raw_http2(server.port, window=100) as raw:
        stream = await raw.request(GATHER, grpc_message(b"m"), end=False)
        await raw.exhausted(stream)
        # Its handler has ended, and would read it no more.
        await raw.more(stream, ending, end=True)
        await server.serves(raw)
        await raw.opened(1000, stream)
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert raw.data[stream] == grpc_message(b"m" * 400)


@pytest.mark.asyncio
async def test_a_status_that_waits_for_the_connections_window_is_given_up_and_the_rest_goes_on() -> None:
    async def zeros(requests: Requests, call: Call) -> bytes:
        return bytes(int(await anext(requests)))

    async with (
        attacked({GATHER: zeros}, status_seconds=0.1) as server,
        raw_http2(server.port, window=LARGEST_WINDOW) as raw,
    ):
        await raw.answered(await raw.request(GATHER, grpc_message(b"60000")))
        stuck = await raw.request(GATHER, grpc_message(b"30000"))
        await raw.answered(stuck)
        assert raw.resets[stuck] == ErrorCodes.CANCEL
        await wide(raw)
        again = await raw.request(GATHER, grpc_message(b"30000"))
        assert (await raw.answered(again))["grpc-status"] == "0"
        assert raw.data[again] == grpc_message(bytes(30_000))
