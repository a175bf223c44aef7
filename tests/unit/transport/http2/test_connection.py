"""One connection, seen from its bytes: what it does before the kernel or the event loop have their turn."""

import asyncio
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from harness.http2_in_memory import PREFACE, MemoryTransport, frames, in_memory, turns
from harness.raw_http2 import grpc_message
from harness.transports import STREAM, UNARY
from harness.waiting import until
from tokenwire.transport.call import Call
from tokenwire.transport.http2.call import Http2Call
from tokenwire.transport.http2.connection import CALLS_A_TURN, IDLE_FRAMES, STEP_BYTES, Connection

LARGEST_WINDOW = 2**31 - 1


class Client:
    """What a client sends on one connection, and the calls that it has begun there."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[Call] = []
        self.encoder = Encoder()
        self.connection: Connection
        self.transport: MemoryTransport
        self.connection, self.transport, self.clients = in_memory({STREAM: self._handler, UNARY: _echo}, **options)
        self.send(PREFACE, SettingsFrame(0))
        self.transport.taken()

    def send(self, *sent: Frame | bytes) -> None:
        """Lets bytes arrive in one segment."""
        parts = (one if isinstance(one, bytes) else one.serialize() for one in sent)
        self.connection.data_received(b"".join(parts))

    def request(self, stream: int, path: str = STREAM) -> bytes:
        """Makes a request."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
        headers = HeadersFrame(stream, self.encoder.encode(fields), flags=["END_HEADERS"]).serialize()
        return headers + DataFrame(stream, grpc_message(b"x"), flags=["END_STREAM"]).serialize()

    async def begun(self, count: int) -> list[Call]:
        """Begins so many calls."""
        self.send(*[self.request(2 * number + 1) for number in range(count)])
        await turns(lambda: len(self.calls) == count)
        return self.calls

    async def gone(self) -> None:
        """Loses the connection, and waits until nothing is left."""
        self.connection.connection_lost(None)
        await turns(lambda: not self.clients.tasks)
        assert not self.clients.connections

    def answers(self) -> list[Frame]:
        """Returns what was answered since the last time."""
        return frames(self.transport.taken())

    async def _handler(self, request: bytes, call: Call) -> None:
        self.calls.append(call)
        await asyncio.Event().wait()


async def _echo(request: bytes, call: Call) -> bytes:
    return request


def _sent(answers: list[Frame], kind: type[Frame]) -> list[Any]:
    return [frame for frame in answers if type(frame) is kind]


@pytest.mark.asyncio
async def test_a_flood_is_noticed_before_all_of_it_has_been_worked_through() -> None:
    client = Client()
    toggled = [SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: size}) for size in (1, 2)]
    client.send(*toggled * 10_000)
    answers = client.answers()
    assert len(_sent(answers, SettingsFrame)) < IDLE_FRAMES + STEP_BYTES // 15 + 10
    (goodbye,) = _sent(answers, GoAwayFrame)
    assert goodbye.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert client.transport.eof
    await client.gone()


@pytest.mark.asyncio
async def test_updates_wake_nobody_who_waits_for_a_window_of_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.send(SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 0}))
    calls = await client.begun(100)
    for call in calls:
        call.begin_write(b"x" * 50, lambda _: None)
    client.answers()
    woken: list[Call] = []
    monkeypatch.setattr(Http2Call, "resume", lambda call: woken.append(call))
    client.send(*[WindowUpdateFrame(0, window_increment=1)] * 100)
    assert not woken
    client.send(WindowUpdateFrame(15, window_increment=1))
    assert woken == [calls[7]]
    await client.gone()


@pytest.mark.asyncio
async def test_no_more_are_woken_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.send(SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}))
    calls = await client.begun(100)
    for call in calls:
        call.begin_write(b"x" * 70_000, lambda _: None)
    resume, woken = Http2Call.resume, list[Call]()

    def watched(call: Http2Call) -> None:
        woken.append(call)
        resume(call)

    monkeypatch.setattr(Http2Call, "resume", watched)
    for _ in range(300):
        client.send(WindowUpdateFrame(0, window_increment=1))
    # One at a time, and each in its turn.
    assert woken == calls * 3
    await client.gone()


@pytest.mark.asyncio
async def test_new_settings_are_acknowledged_before_what_they_let_through() -> None:
    client = Client()
    client.send(SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 0}))
    (call,) = await client.begun(1)
    call.begin_write(b"x" * 50, lambda _: None)
    client.answers()
    # The first of these frames is looked at when h2 knows of both.
    client.send(WindowUpdateFrame(1, window_increment=1), SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 65_535}))
    assert [type(frame) for frame in client.answers()] == [SettingsFrame, DataFrame]
    await client.gone()


@pytest.mark.asyncio
async def test_a_socket_that_is_full_stops_writers_and_reading_and_then_all_goes_on() -> None:
    client = Client()
    told: list[BaseException | None] = []
    calls = await client.begun(3)
    # One of them has written before, and nothing of it waits.
    calls[0].begin_write(b"first", told.append)
    client.answers()
    client.connection.pause_writing()
    assert not client.transport.reading
    for call in calls:
        call.begin_write(b"x" * 1000, told.append)
    # The headers alone, which are no data.
    assert not _sent(client.answers(), DataFrame)
    assert told == [None]
    client.connection.resume_writing()
    assert client.transport.reading
    assert [len(frame.data) for frame in _sent(client.answers(), DataFrame)] == [1005] * 3
    assert told == [None] * 4
    await client.gone()


@pytest.mark.asyncio
async def test_windows_that_open_before_the_first_write_change_nothing_of_it() -> None:
    client = Client()
    (call,) = await client.begun(1)
    wide = SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 100_000})
    client.send(WindowUpdateFrame(1, window_increment=9), WindowUpdateFrame(0, window_increment=9), wide)
    client.answers()
    call.begin_write(b"first", lambda _: None)
    first, second = client.answers()
    assert isinstance(first, HeadersFrame)
    assert isinstance(second, DataFrame)
    await client.gone()


@pytest.mark.asyncio
async def test_calls_that_are_over_are_kept_nowhere() -> None:
    client = Client()
    client.send(client.request(1, UNARY), client.request(3, "/nothing.Nothing/Nothing"))
    await turns(lambda: not client.connection.session.streams)
    # No POST, with an end and without.
    fields = [(":method", "GET"), (":scheme", "http"), (":path", UNARY), (":authority", "test")]
    for stream, flags in ((5, ["END_HEADERS"]), (7, ["END_HEADERS", "END_STREAM"])):
        client.send(HeadersFrame(stream, client.encoder.encode(fields), flags=flags))
    client.send(client.request(9), RstStreamFrame(9))
    assert not client.connection.session.streams
    assert not client.connection._calls
    await client.gone()


@pytest.mark.asyncio
async def test_a_connection_that_ends_tells_its_calls_at_once_and_writes_nothing_more() -> None:
    client = Client()
    calls = await client.begun(3)
    told: list[BaseException | None] = []
    for call in calls:
        call.begin_write(b"x" * 70_000, told.append)
    client.send(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")
    assert len(told) == 3
    (goodbye,) = _sent(client.answers(), GoAwayFrame)
    assert goodbye.error_code == ErrorCodes.PROTOCOL_ERROR
    assert client.transport.eof
    # What still comes, from whomever.
    client.send(PingFrame(0), client.request(99))
    client.connection.resume_writing()
    client.connection.drain()
    client.connection.cancel()
    assert not client.answers()
    await client.gone()


@pytest.mark.asyncio
async def test_a_connection_whose_end_the_client_does_not_see_is_cut() -> None:
    client = Client(ping_timeout_seconds=0.01)
    client.send(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")
    assert not client.transport.aborted
    await until(lambda: client.transport.aborted, "it is cut")
    await client.gone()


@pytest.mark.asyncio
@pytest.mark.parametrize(("held", "cut"), [(1_000_000, True), (999_999, False)])
async def test_a_client_that_takes_of_what_the_socket_holds_is_there(
    monkeypatch: pytest.MonkeyPatch, held: int, cut: bool
) -> None:
    client = Client()
    sizes = iter([1_000_000, held])
    monkeypatch.setattr(client.connection, "_held", lambda: next(sizes))
    client.connection.pause_writing()
    client.connection._heard = False
    client.connection._check()
    assert len(_sent(client.answers(), PingFrame)) == 1
    client.connection._missed()
    assert client.transport.aborted is cut
    await client.gone()


@pytest.mark.asyncio
async def test_pings_while_tokens_flow_are_free_also_if_the_window_is_opened_again_for_each() -> None:
    client = Client()
    (call,) = await client.begun(1)
    for _ in range(5 * IDLE_FRAMES):
        call.begin_write(b"x", lambda _: None)
        # So does grpc-go whenever it measures the line.
        client.send(WindowUpdateFrame(0, window_increment=6), PingFrame(0, bytes(8)))
    assert len(_sent(client.answers(), PingFrame)) == 5 * IDLE_FRAMES
    assert not client.transport.eof
    await client.gone()


@pytest.mark.asyncio
async def test_pings_while_nothing_is_written_are_not_free_whatever_comes_between_them() -> None:
    client = Client()
    await client.begun(1)
    updated = WindowUpdateFrame(0, window_increment=5).serialize()
    for number in range(IDLE_FRAMES + 5):
        # Before it, behind it, or not at all.
        client.send(updated * (number % 2), PingFrame(0, bytes(8)), updated * (number % 3))
    (goodbye,) = _sent(client.answers(), GoAwayFrame)
    assert goodbye.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    await client.gone()


@pytest.mark.asyncio
async def test_a_drain_in_mid_stream_tells_the_last_stream_and_ends_with_it() -> None:
    client = Client()
    calls = await client.begun(2)
    client.connection.drain()
    (goodbye,) = _sent(client.answers(), GoAwayFrame)
    assert (goodbye.last_stream_id, goodbye.error_code) == (3, ErrorCodes.NO_ERROR)
    client.send(client.request(5, UNARY))
    (refused,) = _sent(client.answers(), RstStreamFrame)
    assert (refused.stream_id, refused.error_code) == (5, ErrorCodes.REFUSED_STREAM)
    client.send(RstStreamFrame(1))
    calls[1].begin_write(b"on", lambda _: None)
    assert _sent(client.answers(), DataFrame)
    assert not client.transport.eof
    client.send(RstStreamFrame(3))
    assert client.transport.eof
    await client.gone()


@pytest.mark.asyncio
async def test_a_request_that_is_split_anywhere_is_the_same_request() -> None:
    whole = Client().request(1, UNARY)
    for at in range(1, len(whole)):
        client = Client()
        client.send(whole[:at])
        client.send(whole[at:])
        await turns(lambda: client.transport.sent.endswith(b"grpc-status\x010") or len(client.transport.sent) > 50)  # noqa: B023
        answers = client.answers()
        assert b"".join(frame.data for frame in _sent(answers, DataFrame)) == grpc_message(b"x"), at
        await client.gone()


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [OSError(107, "not connected"), NotImplementedError()], ids=["gone", "tls"])
async def test_a_connection_without_a_half_close_is_closed_as_a_whole(error: Exception) -> None:
    client = Client()
    client.transport.no_eof = error
    client.connection.drain()
    assert client.transport.closed
    client.connection.connection_lost(None)


@pytest.mark.asyncio
async def test_of_many_calls_in_one_segment_few_are_taken_in_by_one_turn_of_the_loop() -> None:
    client = Client()
    many = 100
    # From the second on they are alike, by header compression.
    client.send(client.request(1))
    requests = [client.request(2 * number + 3) for number in range(many)]
    client.send(*requests)
    taken = len(client.connection._calls) - 1
    # They are counted after a step.
    assert 0 < taken <= CALLS_A_TURN + STEP_BYTES // len(requests[-1]) + 1 < many
    assert not client.transport.reading
    client.send(client.request(2 * many + 3))
    assert len(client.connection._calls) == taken + 1, "what comes meanwhile waits behind it"
    await turns(lambda: len(client.calls) == many + 2)
    assert client.transport.reading
    client.connection.connection_lost(None)
