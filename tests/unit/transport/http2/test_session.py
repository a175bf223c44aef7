"""What our own HTTP/2 relies on in h2: a version that counts or names things otherwise is found here.

A call writes its messages beside h2 and counts down its windows. One script is played twice, once so and once by h2's
own `send_data`, and after each of its steps both have written the same bytes and know of the same windows.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamReset
from h2.exceptions import DenialOfServiceError, FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import example, given
from hypothesis import strategies as st

from harness.http2_in_memory import PREFACE, frames, in_memory, turns
from harness.transports import STREAM
from tokenwire.transport.call import Call
from tokenwire.transport.http2.headers import RESPONSE
from tokenwire.transport.http2.session import HEADERS_MAX_BYTES, STREAMS_MAX, Session

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", STREAM), (":authority", "test")]


def request(stream: int, encoder: Encoder, *, end: bool = False) -> HeadersFrame:
    """Makes a request's headers."""
    return HeadersFrame(stream, encoder.encode(HEADERS), flags=["END_HEADERS", *(["END_STREAM"] if end else [])])


def body(*sent: Frame) -> bytes:
    """Returns the bytes of frames."""
    return b"".join(frame.serialize() for frame in sent)


def session(*sent: Frame) -> Session:
    """Returns a session whose client has sent some frames."""
    found = Session()
    found.initiate_connection()
    found.data_to_send()
    found.take(PREFACE + body(SettingsFrame(0), *sent))
    return found


# The same script twice.


class ByH2:
    """The server as h2 would have it: the same messages, by its public methods."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.h2.initiate_connection()
        self.h2.data_to_send()
        self._waits = bytearray()

    def receive(self, data: bytes) -> None:
        self.h2.receive_data(data)
        self._send()

    def write(self, message: bytes) -> None:
        assert not self._waits
        self._waits += b"\x00" + len(message).to_bytes(4, "big") + message
        self._send()

    def _send(self) -> None:
        while self._waits:
            size = min(len(self._waits), self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size)
            if size <= 0:
                return
            self.h2.send_data(1, bytes(self._waits[:size]))
            del self._waits[:size]


STEPS = st.one_of(
    # Messages around a window's edges, and a frame's.
    st.tuples(st.just("write"), st.sampled_from([0, 1, 94, 95, 96, 16_379, 16_380, 16_384, 65_529, 65_530, 65_531])),
    st.tuples(st.just("write"), st.integers(0, 200_000)),
    st.tuples(st.just("stream"), st.integers(1, 100_000)),
    st.tuples(st.just("connection"), st.integers(1, 100_000)),
    st.tuples(st.just("initial"), st.sampled_from([0, 1, 100, 65_535, 100_000])),
    st.tuples(st.just("largest"), st.sampled_from([16_384, 16_385, 2**24 - 1])),
)


def came(step: str, size: int) -> bytes:
    """Returns what a client sends."""
    match step:
        case "stream":
            return WindowUpdateFrame(1, window_increment=size).serialize()
        case "connection":
            return WindowUpdateFrame(0, window_increment=size).serialize()
        case "initial":
            return SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: size}).serialize()
    return SettingsFrame(0, {SettingCodes.MAX_FRAME_SIZE: size}).serialize()


@pytest.mark.asyncio
@given(st.lists(STEPS, max_size=30))
@example([("write", 65_530), ("write", 1), ("initial", 100), ("connection", 9), ("stream", 65_535), ("write", 7)])
@example([("largest", 2**24 - 1), ("write", 65_530), ("write", 100_000), ("connection", 99), ("initial", 0)])
async def test_what_is_written_beside_h2_is_what_it_would_write_and_counts_as_much(
    steps: list[tuple[str, int]],
) -> None:
    calls: list[Call] = []
    told: list[BaseException | None] = []

    async def handler(_: Any, call: Call) -> None:
        calls.append(call)
        await asyncio.Event().wait()

    connection, transport, _ = in_memory({STREAM: handler})
    by_h2 = ByH2()
    start = PREFACE + body(SettingsFrame(0), request(1, Encoder()), DataFrame(1, bytes(5), flags=["END_STREAM"]))
    connection.data_received(start)
    await turns(lambda: calls)
    by_h2.receive(start)
    transport.taken()
    by_h2.h2.data_to_send()
    # The first message brings the headers with it.
    by_h2.h2.send_headers(1, RESPONSE)
    written = 0
    for step, size in [("write", 0), *steps]:
        if step != "write":
            connection.data_received(came(step, size))
            by_h2.receive(came(step, size))
        elif written == len(told):
            written += 1
            calls[0].begin_write(bytes([size % 256]) * size, told.append)
            by_h2.write(bytes([size % 256]) * size)
        assert transport.taken() == by_h2.h2.data_to_send()
        ours, theirs = connection.session, by_h2.h2
        assert ours.outbound_flow_control_window == theirs.outbound_flow_control_window
        assert ours.stream(1).outbound_flow_control_window == theirs.streams[1].outbound_flow_control_window
        assert ours.max_outbound_frame_size == theirs.max_outbound_frame_size
        assert ours.local_flow_control_window(1) == theirs.local_flow_control_window(1)
    assert calls[0].messages == len(told)
    assert not any(told)
    connection.connection_lost(None)
    await turns(lambda: not connection.tasks)


# What else is relied on.


def streams(count: int, encoder: Encoder) -> Iterator[HeadersFrame]:
    """Makes so many requests."""
    return (request(2 * number + 1, encoder) for number in range(count))


def test_open_streams_are_there_by_their_numbers_and_their_window_can_be_counted_down() -> None:
    found = session(*streams(3, Encoder()))
    assert set(found.streams) == {1, 3, 5}
    assert found.open_inbound_streams == 3
    found.stream(3).outbound_flow_control_window -= 100
    assert found.local_flow_control_window(3) == 65_435
    found.outbound_flow_control_window -= 200
    assert found.local_flow_control_window(1) == 65_335


def test_open_streams_are_not_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(H2Connection, "_open_streams", lambda self, remainder: pytest.fail("they are counted"))
    assert session(*streams(5, Encoder())).open_inbound_streams == 5


def test_a_frame_of_a_stream_that_is_forgotten_ends_nothing() -> None:
    encoder = Encoder()
    found = session(*streams(3, encoder))
    found.send_headers(1, RESPONSE)
    found.finish(1, ((b"grpc-status", b"0"),))
    found.finish(3, (*RESPONSE, (b"grpc-status", b"0")))
    for stream in (1, 3):
        found.forget(stream)
        # Whoever ends it again has nothing to do.
        found.forget(stream)
    assert set(found.streams) == {5}
    late: list[Frame] = [
        *[DataFrame(1, b"late"), WindowUpdateFrame(1, window_increment=5), RstStreamFrame(1)],
        HeadersFrame(3, encoder.encode([("x-late", "1")]), flags=["END_HEADERS", "END_STREAM"]),
    ]
    assert not [one for one in found.take(body(*late)) if type(one) in (DataReceived, RequestReceived)]
    assert found.take(body(request(7, encoder)))


def test_what_forgotten_streams_leave_behind_is_bounded() -> None:
    encoder = Encoder()
    found = session()
    for number in range(STREAMS_MAX + 100):
        found.take(body(request(2 * number + 1, encoder, end=True)))
        found.finish(2 * number + 1, RESPONSE)
        found.forget(2 * number + 1)
    assert not found.streams
    assert len(found._closed_streams) == STREAMS_MAX


def test_a_stream_ends_for_both_and_without_a_reset_if_the_client_has_ended_it() -> None:
    encoder = Encoder()
    found = session(request(1, encoder), request(3, encoder, end=True))
    found.data_to_send()
    for stream in (1, 3):
        found.finish(stream, RESPONSE)
        assert found.streams[stream].closed
    sent = frames(found.data_to_send())
    assert [(type(one), one.stream_id) for one in sent] == [(HeadersFrame, 1), (RstStreamFrame, 1), (HeadersFrame, 3)]
    assert isinstance(sent[1], RstStreamFrame)
    assert sent[1].error_code == ErrorCodes.NO_ERROR


def test_a_reset_makes_room_for_the_stream_behind_it() -> None:
    encoder = Encoder()
    found = session(*streams(STREAMS_MAX, encoder))
    events = found.take(body(RstStreamFrame(1), request(2 * STREAMS_MAX + 1, encoder)))
    assert [type(event) for event in events] == [StreamReset, RequestReceived]
    assert len(found.streams) == STREAMS_MAX
    with pytest.raises(ProtocolError):
        found.take(body(request(2 * STREAMS_MAX + 3, encoder)))


def test_neither_side_ends_the_streams_that_run_by_saying_goodbye() -> None:
    encoder = Encoder()
    found = session(*streams(2, encoder))
    (goodbye,) = frames(found.goaway())
    assert isinstance(goodbye, GoAwayFrame)
    assert (goodbye.last_stream_id, goodbye.error_code) == (3, ErrorCodes.NO_ERROR)
    events = found.take(body(GoAwayFrame(0, last_stream_id=0), DataFrame(1, b"more")))
    assert [type(event) for event in events] == [ConnectionTerminated, DataReceived]
    found.send_headers(1, RESPONSE)
    found.finish(1, ((b"grpc-status", b"0"),))
    found.ping(bytes(8))
    assert found.take(body(request(5, encoder)))


def test_a_frame_that_is_too_long_is_refused_by_its_first_bytes() -> None:
    found = session()
    found.data_to_send()
    with pytest.raises(FrameTooLargeError):
        found.take(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01")
    (goodbye,) = frames(found.data_to_send())
    assert isinstance(goodbye, GoAwayFrame)
    assert goodbye.error_code == ErrorCodes.FRAME_SIZE_ERROR
    # The longest that is allowed, whose body is still to come.
    assert session().take(b"\x00\x40\x00\x00\x00\x00\x00\x00\x01") == []


def test_headers_beyond_the_bound_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = session()
    monkeypatch.setattr(found.decoder, "decode", lambda data, raw: pytest.fail("they are unpacked"))
    with pytest.raises(DenialOfServiceError):
        found._receive_headers_frame(HeadersFrame(1, bytes(HEADERS_MAX_BYTES + 1), flags=["END_HEADERS"]))


def test_a_list_of_headers_beyond_the_bound_is_not_unpacked_to_its_end() -> None:
    packed = Encoder().encode([*HEADERS, ("x-bomb", "x" * 4000)]) + bytes([0x80 | 62]) * 20
    with pytest.raises(DenialOfServiceError):
        session(HeadersFrame(1, packed, flags=["END_HEADERS"]))


def test_clients_are_told_how_many_streams_there_may_be_and_how_large_headers() -> None:
    found = Session()
    found.initiate_connection()
    (told,) = frames(found.data_to_send())
    assert isinstance(told, SettingsFrame)
    assert told.settings[SettingCodes.MAX_CONCURRENT_STREAMS] == STREAMS_MAX >= 4096
    assert told.settings[SettingCodes.MAX_HEADER_LIST_SIZE] == HEADERS_MAX_BYTES
