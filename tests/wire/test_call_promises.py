"""What `Call` promises its handlers on every transport: the request, writing, and requests that come as a stream.

How calls end is in test_call_endings.py. The promises are written down in docs/decisions/0015.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.raw_http2 import RawHttp2, grpc_message, raw_http2
from harness.transports import BIDI, GATHER, MESSAGE_MAX_BYTES, STREAM, TRANSPORTS, UNARY, Served, Transport, Word
from harness.waiting import until
from tokenwire.domain.errors import TokenwireError
from tokenwire.transport.call import Call, ClientGoneError, Handler, Kind, Requests

# Beyond what flow control allows, what a transport may hold of one stream.
AHEAD_BYTES = 65_536
LARGE = b"l" * 4096


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each transport in turn."""
    return TRANSPORTS[request.param]


@asynccontextmanager
async def connected(
    transport: Transport, handlers: dict[str, Handler], *, window: int = 65_535, **options: Any
) -> AsyncIterator[tuple[Served, RawHttp2]]:
    """A server and one connection to it, which takes a megabyte in all."""
    async with transport(handlers, **options) as served, raw_http2(served.port, window=window) as raw:
        raw._h2.increment_flow_control_window(2**20)
        await raw.flush()
        yield served, raw


def messages(data: bytes) -> list[bytes]:
    """Returns the messages of an answer."""
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        assert (data[0], len(data) >= 5 + size) == (0, True), "a message is cut, or compressed"
        found.append(bytes(data[5 : 5 + size]))
        data = data[5 + size :]
    return found


async def opened(raw: RawHttp2, stream: int, size: int = 2**20) -> None:
    """Lets more of an answer through."""
    raw._h2.increment_flow_control_window(size, stream)
    await raw.flush()


class Stalled:
    """Whether a number has stopped to grow."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def at(self, number: int) -> bool:
        self.seen.append(number)
        return len(self.seen) > 20 and len(set(self.seen[-20:])) == 1


# The request.


@pytest.mark.asyncio
async def test_a_handler_knows_its_method_its_kind_and_its_own_context(transport: Transport) -> None:
    seen: list[tuple[str, Kind, str]] = []

    async def note(request: Any, call: Call) -> bytes | None:
        seen.append((call.method, call.kind, call.context.rpc_id))
        return b"" if call.kind in (Kind.UNARY, Kind.CLIENT_STREAM) else None

    handlers: dict[str, Handler] = {UNARY: note, STREAM: note, GATHER: note, BIDI: note}
    async with connected(transport, handlers) as (_, raw):
        for method in handlers:
            assert (await raw.answered(await raw.request(method)))["grpc-status"] == "0"
    kinds = (Kind.UNARY, Kind.SERVER_STREAM, Kind.CLIENT_STREAM, Kind.BIDI)
    assert seen == [(method, kind, f"rpc-{n}") for n, (method, kind) in enumerate(zip(handlers, kinds, strict=True))]


@pytest.mark.asyncio
async def test_metadata_is_what_the_client_sent_by_lower_case_key_and_the_last_value_counts(
    transport: Transport,
) -> None:
    seen: list[dict[str, str]] = []

    async def note(request: Any, call: Call) -> bytes:
        seen.append(dict(call.metadata))
        return b""

    long = "v" * 4000
    headers = [("x-one", "1"), ("x-two", "first"), ("x-two", "last"), ("x-long", long), ("x-data-bin", "AAH/")]
    async with connected(transport, {UNARY: note}) as (_, raw):
        await raw.answered(await raw.request(UNARY, headers=headers))
    (metadata,) = seen
    assert (metadata["x-one"], metadata["x-two"], metadata["x-long"]) == ("1", "last", long)
    # Values are text; what is not is left out.
    assert all(isinstance(value, str) for value in metadata.values())
    assert not any(key.startswith(":") for key in metadata)


@pytest.mark.asyncio
async def test_metadata_beyond_16_kib_reaches_no_handler(transport: Transport) -> None:
    async def fails(request: Any, call: Call) -> bytes:
        raise AssertionError

    async with connected(transport, {UNARY: fails}) as (_, raw):
        told = await raw.answered(await raw.request(UNARY, headers=[("x-large", "x" * 17_000)]))
        assert told.get("grpc-status") == "8"


@pytest.mark.asyncio
async def test_the_time_to_the_deadline_runs_and_without_one_there_is_none(transport: Transport) -> None:
    seen: list[float | None] = []

    async def note(request: Any, call: Call) -> bytes:
        seen.append(call.time_remaining)
        await asyncio.sleep(0.01)
        seen.append(call.time_remaining)
        return b""

    async with connected(transport, {UNARY: note}) as (_, raw):
        await raw.answered(await raw.request(UNARY))
        await raw.answered(await raw.request(UNARY, headers=[("grpc-timeout", "20S")]))
    none, still_none, first, second = seen
    assert none is still_none is None
    assert first is not None
    assert second is not None
    assert 20.2 >= first > second > 0


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, MESSAGE_MAX_BYTES])
async def test_a_request_comes_as_the_bytes_that_were_sent(transport: Transport, size: int) -> None:
    sent = bytes(number % 251 for number in range(size))
    seen: list[bytes] = []

    async def note(request: Any, call: Call) -> bytes:
        seen.append(request)
        return b""

    async with connected(transport, {UNARY: note}) as (_, raw):
        body = grpc_message(sent)
        stream = await raw.request(UNARY, body[:16_000], end=len(body) <= 16_000)
        for start in range(16_000, len(body), 16_000):
            await raw.wait(lambda: raw._h2.local_flow_control_window(stream) >= 16_000, "the server takes more")
            await raw.more(stream, body[start : start + 16_000], end=start + 16_000 >= len(body))
        await raw.answered(stream)
    assert seen == [sent]


@pytest.mark.asyncio
async def test_a_request_that_is_too_large_or_unreadable_is_the_transports_and_the_parsers_affair(
    transport: Transport,
) -> None:
    raised: list[Exception] = []

    async def reads(request: Any, call: Call) -> bytes:
        try:
            call.parse(request)
        except ValueError as error:
            raised.append(error)
        return b""

    async with connected(transport, {UNARY: reads}) as (_, raw):
        stream = await raw.request(UNARY, grpc_message(b"", length=MESSAGE_MAX_BYTES + 1), end=False)
        assert (await raw.answered(stream))["grpc-status"] == "8"
        assert not raised
        assert (await raw.answered(await raw.request(UNARY, grpc_message(b"\xff"))))["grpc-status"] == "0"
    # Whatever the parser raises, and without what it says of the data.
    assert [str(error) for error in raised] == ["not a message of this method"]


# Writing.


@pytest.mark.asyncio
async def test_messages_arrive_whole_and_in_the_order_of_their_writes_before_the_status(transport: Transport) -> None:
    sent = [str(number).encode() * (number % 7) for number in range(500)]

    async def writes(request: Any, call: Call) -> None:
        for number, one in enumerate(sent):
            assert call.messages == number
            await call.write(one)

    async with connected(transport, {STREAM: writes}) as (_, raw):
        stream = await raw.request(STREAM)
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert messages(bytes(raw.data[stream])) == sent


@pytest.mark.asyncio
async def test_a_write_encodes_its_message_once_and_before_it_gives_way(transport: Transport) -> None:
    async def writes(request: Any, call: Call) -> None:
        word = Word("first")
        writing = call.write(word)
        task = asyncio.ensure_future(writing)
        await asyncio.sleep(0)
        # From now on it is its writer's again.
        word.text = "second"
        await task
        assert word.encoded == 1
        await call.write(word)

    async with connected(transport, {STREAM: writes}) as (_, raw):
        stream = await raw.request(STREAM)
        await raw.answered(stream)
        assert messages(bytes(raw.data[stream])) == [b"first", b"second"]


@pytest.mark.asyncio
async def test_what_cannot_be_written_is_the_writers_error_and_the_stream_goes_on(transport: Transport) -> None:
    async def writes(request: Any, call: Call) -> None:
        with pytest.raises(TypeError):
            await call.write("no message")
        with pytest.raises(TokenwireError) as caught:
            await call.write(bytes(MESSAGE_MAX_BYTES + 1))
        assert caught.value.reason == "MESSAGE_TOO_LARGE"
        assert call.messages == 0
        await call.write(b"fine")

    async with connected(transport, {STREAM: writes}) as (_, raw):
        stream = await raw.request(STREAM)
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert messages(bytes(raw.data[stream])) == [b"fine"]


@pytest.mark.asyncio
async def test_a_client_that_does_not_read_stops_its_writer_alone(transport: Transport) -> None:
    calls: list[Call] = []

    async def writes(request: Any, call: Call) -> None:
        calls.append(call)
        while len(calls) == 1 or call.messages < 5:
            await call.write(LARGE)

    async with connected(transport, {STREAM: writes}, window=10_000) as (_, raw):
        stuck = await raw.request(STREAM)
        await raw.exhausted(stuck)
        stalled = Stalled()
        await until(lambda: stalled.at(calls[0].messages), "the writer waits")
        written = calls[0].messages
        assert written * len(LARGE) <= 10_000 + AHEAD_BYTES
        # On the same connection.
        other = await raw.request(STREAM)
        await opened(raw, other)
        assert (await raw.answered(other))["grpc-status"] == "0"
        assert calls[0].messages == written, "a write that is under way is not counted"
        await opened(raw, stuck)
        assert (await raw.answered(stuck))["grpc-status"] == "0"
        assert set(messages(bytes(raw.data[stuck]))) == {LARGE}


@pytest.mark.asyncio
async def test_headers_do_not_wait_for_the_first_message(transport: Transport) -> None:
    async def writes(request: Any, call: Call) -> None:
        await call.write(b"first")

    async with connected(transport, {STREAM: writes}, window=0) as (_, raw):
        stream = await raw.request(STREAM)
        await raw.wait(lambda: raw.headers[stream].get(":status") == "200", "the headers are there")
        assert not raw.data[stream]
        await opened(raw, stream)
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert messages(bytes(raw.data[stream])) == [b"first"]


# Requests that come as a stream.


@pytest.mark.asyncio
async def test_requests_come_one_by_one_until_the_half_close_and_answers_between_them(transport: Transport) -> None:
    async def echo(requests: Requests, call: Call) -> None:
        assert aiter(requests) is requests
        async for request in requests:
            await call.write(request)
        await call.write(b"end")

    async with connected(transport, {BIDI: echo}) as (_, raw):
        stream = await raw.request(BIDI, b"", end=False)
        for number in range(3):
            await raw.more(stream, grpc_message(str(number).encode()), end=False)
            await raw.wait(lambda: messages(bytes(raw.data[stream]))[-1:] == [str(number).encode()], "it is answered")  # noqa: B023
        # Several at once, one of them in two parts.
        both = grpc_message(b"") + grpc_message(b"parts")
        await raw.more(stream, both[:-2], end=False)
        await raw.more(stream, both[-2:], end=True)
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert messages(bytes(raw.data[stream])) == [b"0", b"1", b"2", b"", b"parts", b"end"]


@pytest.mark.asyncio
async def test_who_does_not_take_requests_holds_their_sender_back(transport: Transport) -> None:
    more = asyncio.Event()
    taken = 0

    async def gather(requests: Requests, call: Call) -> bytes:
        nonlocal taken
        await anext(requests)
        await more.wait()
        async for _ in requests:
            taken += 1
        return b""

    async with connected(transport, {GATHER: gather}) as (_, raw):
        stream = await raw.request(GATHER, grpc_message(b""), end=False)
        stalled, sent = Stalled(), 0
        one = grpc_message(LARGE)
        while not stalled.at(sent):
            await asyncio.sleep(0.005)
            while raw._h2.local_flow_control_window(stream) >= len(one):
                await raw.more(stream, one, end=False)
                sent += 1
                assert sent < 100_000, "nothing holds the client back"
        more.set()
        await raw.wait(lambda: raw._h2.local_flow_control_window(stream) >= len(one), "the server takes more")
        await raw.more(stream, b"", end=True)
        assert (await raw.answered(stream))["grpc-status"] == "0"
    assert taken == sent


@pytest.mark.asyncio
async def test_a_handler_may_end_before_its_client_has(transport: Transport) -> None:
    async def first(requests: Requests, call: Call) -> None:
        await call.write(await anext(requests))

    async with connected(transport, {BIDI: first}) as (_, raw):
        stream = await raw.request(BIDI, grpc_message(b"one"), end=False)
        assert (await raw.answered(stream))["grpc-status"] == "0"
        assert messages(bytes(raw.data[stream])) == [b"one"]


# Writing without a task.


@pytest.mark.asyncio
async def test_a_write_without_a_task_is_like_any_other(transport: Transport) -> None:
    counts: list[int] = []

    async def write(request: Any, call: Call) -> None:
        for number in range(4):
            ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
            call.begin_write(Word(f"{number}"), ended.set_result)
            assert call.messages == number or ended.done()
            assert await ended is None
            counts.append(call.messages)
        await call.write(Word("last"))

    async with connected(transport, {STREAM: write}) as (_, raw):
        stream = await raw.request(STREAM)
        await raw.answered(stream)
        assert messages(bytes(raw.data[stream])) == [b"0", b"1", b"2", b"3", b"last"]
        assert counts == [1, 2, 3, 4]


@pytest.mark.asyncio
async def test_a_write_without_a_task_says_when_the_client_has_left(transport: Transport) -> None:
    told: list[object] = []
    left = asyncio.Event()

    async def write(request: Any, call: Call) -> None:
        await call.write(b"first")
        try:
            await left.wait()
        except asyncio.CancelledError:
            call.begin_write(b"second", told.append)
            raise

    async with connected(transport, {STREAM: write}) as (_, raw):
        stream = await raw.request(STREAM)
        await raw.wait(lambda: len(raw.data[stream]) > 0, "the first message")
        await raw.reset(stream)
        await until(lambda: bool(told), "the write's end")
    assert isinstance(told[0], ClientGoneError | asyncio.CancelledError)
