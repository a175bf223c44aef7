"""Our own HTTP/2 under floods and frames that no good client sends: they end their connection, and nothing else."""

import asyncio
from contextlib import suppress

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame
from hyperframe.frame import WindowUpdateFrame as WindowUpdate

from harness.attacked_http2 import WAIT, attacked, several, stream_of
from harness.raw_http2 import RawHttp2, grpc_message, raw_http2
from harness.transports import BIDI, GATHER, STREAM, UNARY
from harness.waiting import until
from tokenwire.transport.http2.connection import RESETS
from tokenwire.transport.http2.session import HEADERS_MAX_BYTES, STREAMS_MAX

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", UNARY), (":authority", "test")]


async def sent_away(raw: RawHttp2, *codes: ErrorCodes) -> None:
    """Waits until the server has closed the connection, and said why."""
    await raw.wait(lambda: raw.closed, "the connection is closed")
    assert raw.goaway in codes


@pytest.mark.asyncio
async def test_resets_beyond_the_budget_end_the_connection_and_all_its_handlers() -> None:
    # CVE-2023-44487.
    async with attacked() as server, raw_http2(server.port) as raw:
        for _ in range(100):
            await raw.request(STREAM, WAIT, flush=False)
        await raw.flush()
        await until(lambda: len(server.running) == 100, "the handlers run")
        with suppress(ConnectionError):
            for number in range(RESETS + 1000):
                await raw.reset(await raw.request(STREAM, WAIT, flush=False), flush=number % 50 == 49)
        await sent_away(raw, ErrorCodes.ENHANCE_YOUR_CALM)
        await until(lambda: not server.running, "the handlers have ended")
        assert server.started == 100


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "flood",
    [
        [SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: size}) for size in (0, 65_535)] * 100,
        [PingFrame(0, bytes(8))] * 200,
        [DataFrame(1, b"")] * 200,
        [DataFrame(1, b"", pad_length=100, flags=["PADDED"])] * 200,
    ],
    ids=["settings", "pings", "empty data", "padding"],
)
async def test_a_flood_that_brings_nothing_is_sent_away(flood: list[Frame]) -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        await raw.request(BIDI, b"", end=False)
        await raw.send(*flood)
        await sent_away(raw, ErrorCodes.ENHANCE_YOUR_CALM)


@pytest.mark.asyncio
async def test_pings_whose_answers_nobody_reads_are_not_answered_for_ever() -> None:
    async with attacked(keepalive_seconds=0.2, ping_timeout_seconds=0.2) as server, raw_http2(server.port) as raw:
        raw.stop_reading()
        with suppress(ConnectionError):
            for _ in range(100):
                await raw.send(*[PingFrame(0, bytes(8))] * 1000)
        await until(lambda: not server.connections, "the connection is closed")


@pytest.mark.asyncio
async def test_headers_without_an_end_are_cut_off() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        begun = HeadersFrame(1, Encoder().encode(REQUEST), flags=["END_STREAM"])
        await raw.send(begun, *[ContinuationFrame(1, b"")] * 100)
        await sent_away(raw, ErrorCodes.PROTOCOL_ERROR)
        assert not server.started


@pytest.mark.asyncio
async def test_headers_that_are_too_large_end_their_connection_packed_or_not() -> None:
    async with attacked() as server:
        packed = Encoder().encode([*REQUEST, ("x-bomb", "x" * 4000)])
        # One byte for each further time.
        bomb = packed + bytes([0x80 | 62]) * 1000
        many = Encoder().encode(REQUEST) + b"\x00\x01x\x00" * 20_000
        assert len(many) > HEADERS_MAX_BYTES
        for block in (bomb, many):
            async with raw_http2(server.port) as raw:
                parts = [block[start : start + 16_000] for start in range(0, len(block), 16_000)]
                frames: list[Frame] = [HeadersFrame(1, parts[0], flags=["END_STREAM"])]
                frames += [ContinuationFrame(1, part) for part in parts[1:]]
                frames[-1].flags.add("END_HEADERS")
                await raw.send(*frames)
                await sent_away(raw, ErrorCodes.ENHANCE_YOUR_CALM)
        assert not server.started


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (WindowUpdate(0, window_increment=2**31 - 1), ErrorCodes.FLOW_CONTROL_ERROR),
        (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", ErrorCodes.PROTOCOL_ERROR),
        (b"\x00\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00\x00\x00", ErrorCodes.PROTOCOL_ERROR),
        (DataFrame(99, b"x"), ErrorCodes.PROTOCOL_ERROR),
        (b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x", ErrorCodes.PROTOCOL_ERROR),
        (HeadersFrame(2, Encoder().encode(REQUEST), flags=["END_HEADERS"]), ErrorCodes.PROTOCOL_ERROR),
        (HeadersFrame(1, b"\xff\xff\xff", flags=["END_HEADERS"]), ErrorCodes.PROTOCOL_ERROR),
        (ContinuationFrame(1, b""), ErrorCodes.PROTOCOL_ERROR),
        (SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 2**31}), ErrorCodes.FLOW_CONTROL_ERROR),
        (SettingsFrame(0, {SettingCodes.MAX_FRAME_SIZE: 1}), ErrorCodes.PROTOCOL_ERROR),
        (b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + bytes(7), ErrorCodes.FRAME_SIZE_ERROR),
        (b"\x01\x00\x00\x00\x00\x00\x00\x00\x01", ErrorCodes.FRAME_SIZE_ERROR),
    ],
    ids=[
        *("overflow", "no update", "no update of a stream", "no stream", "stream 0", "a server's stream"),
        *("broken headers", "continuation of nothing", "window", "frame size", "short ping", "long data"),
    ],
)
async def test_a_frame_that_may_not_be_ends_its_connection_and_the_handlers_on_it(
    frame: Frame | bytes, code: ErrorCodes
) -> None:
    async with attacked() as server, raw_http2(server.port) as other, raw_http2(server.port) as raw:
        await raw.request(STREAM, WAIT, end=False)
        await until(lambda: len(server.running) == 1, "the handler runs")
        await raw.send(frame)
        await sent_away(raw, code)
        await until(lambda: not server.running, "the handler has ended")
        await server.serves(other)


@pytest.mark.asyncio
async def test_a_window_that_overflows_ends_its_stream_alone() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        stream = await raw.request(STREAM, WAIT)
        await until(lambda: len(server.running) == 1, "the handler runs")
        await raw.send(WindowUpdate(stream, window_increment=2**31 - 1))
        await raw.answered(stream)
        assert raw.resets[stream] == ErrorCodes.FLOW_CONTROL_ERROR
        await until(lambda: not server.running, "the handler has ended")
        await server.serves(raw)


@pytest.mark.asyncio
async def test_data_beyond_the_window_ends_the_connection() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        # The first message is taken, and no more: the stream's window stays shut.
        stream = await raw.request(STREAM, WAIT, end=False)
        await until(lambda: len(server.running) == 1, "the handler runs")
        await raw.send(*[DataFrame(stream, bytes(16_000))] * 8)
        await sent_away(raw, ErrorCodes.FLOW_CONTROL_ERROR)


@pytest.mark.asyncio
async def test_data_on_a_stream_that_is_over_resets_it_and_costs_no_handler() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        over = await raw.request(UNARY)
        await raw.answered(over)
        running = await raw.request(STREAM, WAIT)
        await until(lambda: len(server.running) == 1, "the handler runs")
        # Behind its end, as nobody may.
        await raw.send(DataFrame(running, b"more"), DataFrame(over, b"more"))
        await raw.wait(lambda: running in raw.resets, "it is reset")
        assert raw.resets[running] == ErrorCodes.STREAM_CLOSED
        await until(lambda: not server.running, "the handler has ended")
        await server.serves(raw)


@pytest.mark.asyncio
async def test_as_many_streams_as_may_be_are_open_and_one_that_makes_room_for_another_is_counted_at_once() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        streams = [await raw.request(STREAM, WAIT, flush=False) for _ in range(STREAMS_MAX)]
        await raw.flush()
        await until(lambda: len(server.running) == STREAMS_MAX, "all run")
        # In one segment.
        for stream in streams[:10]:
            await raw.reset(stream, flush=False)
            await raw.request(STREAM, WAIT, flush=False)
        await raw.flush()
        await until(lambda: server.started == STREAMS_MAX + 10, "the others run")
        assert not raw.closed
        assert len(server.running) == STREAMS_MAX
        # One too many.
        raw._h2.remote_settings.max_concurrent_streams = 10_000
        raw._h2.remote_settings.acknowledge()
        await raw.request(STREAM, WAIT)
        await sent_away(raw, ErrorCodes.PROTOCOL_ERROR)
        await until(lambda: not server.running, "all have ended")


@pytest.mark.asyncio
async def test_updates_of_one_byte_bring_one_byte_each_and_what_waits_for_its_own_window_is_not_looked_at() -> None:
    async with attacked() as server, raw_http2(server.port, window=0) as raw:
        stuck = [await raw.request(STREAM, several(1, 10), flush=False) for _ in range(50)]
        await raw.flush()
        await until(lambda: server.started == len(server.running) == 50, "all wait")
        (connection,) = server.server._clients.connections
        assert not connection.waiting
        for size in range(1, 16):
            raw._h2.increment_flow_control_window(1)
            await raw.opened(1, stuck[0])
            await raw.wait(lambda: len(raw.data[stuck[0]]) == size, "a byte has come")  # noqa: B023
        await raw.settings({SettingCodes.INITIAL_WINDOW_SIZE: 15})
        for stream in stuck:
            assert (await raw.answered(stream))["grpc-status"] == "0"
            assert raw.data[stream] == stream_of(1, 10)


@pytest.mark.asyncio
async def test_a_client_of_many_small_frames_is_served_like_any_other() -> None:
    async with attacked() as server, raw_http2(server.port) as raw:
        stream = await raw.request(GATHER, b"", end=False)
        body = grpc_message(bytes(3000)) + grpc_message(b"") + grpc_message(bytes(7))
        await raw.send(*[DataFrame(stream, body[at : at + 1]) for at in range(len(body))])
        await raw.send(DataFrame(stream, b"", flags=["END_STREAM"]))
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert raw.data[stream] == grpc_message(b"[3000, 0, 7]")


@pytest.mark.asyncio
async def test_whoever_sends_no_http2_at_all_is_closed_at_once() -> None:
    async with attacked() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        async with asyncio.timeout(20):
            while await reader.read(65_536):
                pass
        writer.close()
        await writer.wait_closed()
