"""A call's stream of requests, and how it holds its sender back."""

import asyncio

import pytest

from tokenwire.domain.errors import TokenwireError
from tokenwire.transport.http2.incoming import Incoming
from tokenwire.transport.http2.requests import RELEASE_BYTES, Http2Requests

MAX_BYTES = 1_000_000


def framed(data: bytes) -> bytes:
    """Puts the prefix before a message."""
    return b"\x00" + len(data).to_bytes(4, "big") + data


class Sender:
    """A client, and the requests that it makes."""

    def __init__(self) -> None:
        self.released: list[int] = []
        self.requests = Http2Requests(Incoming(MAX_BYTES, ""), self.released.append)

    def send(self, data: bytes) -> None:
        self.requests.put(data, len(data))


@pytest.mark.asyncio
async def test_requests_come_in_order_and_those_that_are_there_before_the_end() -> None:
    sender = Sender()
    sender.send(framed(b"one") + framed(b"two") + framed(b"three")[:3])
    assert await anext(sender.requests) == b"one"
    sender.send(framed(b"three")[3:])
    assert sender.requests.end()
    assert [one async for one in sender.requests] == [b"two", b"three"]
    with pytest.raises(StopAsyncIteration):
        await anext(sender.requests)


@pytest.mark.asyncio
async def test_whoever_waits_gets_the_next_one_or_the_end() -> None:
    sender = Sender()
    waiting = asyncio.ensure_future(anext(sender.requests))
    await asyncio.sleep(0)
    sender.send(framed(b"one")[:4])
    await asyncio.sleep(0)
    assert not waiting.done()
    sender.send(framed(b"one")[4:])
    assert await waiting == b"one"
    waiting = asyncio.ensure_future(anext(sender.requests))
    await asyncio.sleep(0)
    sender.requests.end()
    with pytest.raises(StopAsyncIteration):
        await waiting


@pytest.mark.asyncio
async def test_the_window_stays_shut_while_requests_are_not_taken_and_opens_for_all_of_them_then() -> None:
    sender = Sender()
    one = framed(bytes(RELEASE_BYTES))
    for _ in range(3):
        sender.send(one)
    assert not sender.released
    for _ in range(2):
        await anext(sender.requests)
        assert not sender.released
    await anext(sender.requests)
    assert sender.released == [3 * len(one)]


@pytest.mark.asyncio
async def test_the_window_opens_for_a_message_that_is_larger_than_it() -> None:
    sender = Sender()
    one = framed(bytes(300_000))
    for start in range(0, len(one), 16_000):
        sender.send(one[start : start + 16_000])
        assert start + 16_000 - sum(sender.released) < 65_535
    assert await anext(sender.requests) == bytes(300_000)


@pytest.mark.asyncio
async def test_every_byte_of_the_window_is_given_back_but_less_than_one_step() -> None:
    sender = Sender()
    sent = 0
    for number in range(200):
        one = framed(bytes(number * 7))
        sender.send(one)
        sent += len(one)
        await anext(sender.requests)
        assert 0 <= sent - sum(sender.released) < RELEASE_BYTES


@pytest.mark.asyncio
async def test_the_window_of_a_stream_that_has_ended_is_not_opened() -> None:
    sender = Sender()
    sender.send(framed(bytes(RELEASE_BYTES)))
    sender.requests.end()
    await anext(sender.requests)
    assert not sender.released


@pytest.mark.asyncio
async def test_a_message_that_is_cut_or_too_large_is_told_at_once() -> None:
    sender = Sender()
    sender.send(framed(b"one") + b"\x00")
    assert not sender.requests.end()
    with pytest.raises(TokenwireError):
        Sender().send(framed(bytes(MAX_BYTES + 1))[:5])
