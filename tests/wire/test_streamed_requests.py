"""Requests that come as a stream, inside the real interceptors."""

import asyncio
from typing import Any

import grpc
import pytest

from harness.byte_calls import bidi_call
from harness.endpoints import BIDI, GATHER, odd
from harness.refusals import read_to_refusal, refused
from harness.waiting import until
from tokenwire.transport.call import Call, ClientGoneError, Requests
from tokenwire.v1.server_service_pb2 import GetServerInfoRequest, ServerInfo

# Field 1000, which nobody knows: a request of 64 KiB.
LARGE = b"\xc2\x3e\x80\x80\x04" + bytes(65_536)
TIMEOUT = 20.0


async def _echo(requests: Requests, call: Call) -> None:
    async for request in requests:
        assert isinstance(request, GetServerInfoRequest)
        await call.write(ServerInfo(api_revision=call.messages))


@pytest.mark.asyncio
async def test_each_request_is_answered_while_others_come_and_the_half_close_ends_it() -> None:
    async with odd(bidi=_echo) as running:
        call = bidi_call(running.channel, BIDI)(timeout=TIMEOUT)
        for number in range(5):
            await call.write(b"")
            assert ServerInfo.FromString(await call.read()).api_revision == number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.asyncio
async def test_a_stream_of_requests_may_have_one_answer() -> None:
    async def gather(requests: Requests, call: Call) -> ServerInfo:
        return ServerInfo(api_revision=len([request async for request in requests]))

    async with odd(gather=gather) as running:
        call: Any = running.channel.stream_unary(GATHER, response_deserializer=ServerInfo.FromString)
        assert (await call(iter([b""] * 7), timeout=TIMEOUT)).api_revision == 7
        assert (await call(iter(()), timeout=TIMEOUT)).api_revision == 0


@pytest.mark.asyncio
async def test_a_request_that_is_no_message_ends_the_call_behind_the_good_ones() -> None:
    async def gather(requests: Requests, call: Call) -> ServerInfo:
        return ServerInfo(api_revision=len([request async for request in requests]))

    async with odd(bidi=_echo, gather=gather) as running:
        # Nothing is written behind it, no end either: grpc.aio takes the failure of a write for the status.
        both: Any = bidi_call(running.channel, BIDI)(timeout=TIMEOUT)
        await _written(both, b"", b"", b"\xff")
        messages, told = await read_to_refusal(both)
        assert len(messages) == 2
        assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "MALFORMED_REQUEST")
        call: Any = running.channel.stream_unary(GATHER)(timeout=TIMEOUT)
        await _written(call, b"", b"\xff")
        told = await refused(call)
        assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "MALFORMED_REQUEST")


async def _written(call: Any, *requests: bytes) -> None:
    for one in requests:
        await call.write(one)


@pytest.mark.asyncio
async def test_a_handler_may_end_before_its_client() -> None:
    async def first(requests: Requests, call: Call) -> None:
        await anext(requests)
        await call.write(ServerInfo())

    async with odd(bidi=first) as running:
        call = bidi_call(running.channel, BIDI)(timeout=TIMEOUT)
        await call.write(b"")
        await call.read()
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.asyncio
async def test_a_bug_behind_a_cancelled_read_is_internal_and_leaves_no_task() -> None:
    async def breaks(requests: Requests, call: Call) -> None:
        reading = asyncio.ensure_future(anext(requests))
        await call.write(ServerInfo())
        reading.cancel()
        await asyncio.wait([reading])
        raise ValueError("secret=/etc/passwd")

    async with odd(bidi=breaks) as running:
        call = bidi_call(running.channel, BIDI)(timeout=TIMEOUT)
        await call.read()
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert await call.details() == "internal error, rpc id rpc-0"


@pytest.mark.asyncio
async def test_who_does_not_read_holds_the_client_back() -> None:
    count, most, written, read, seen = 800, 0, 0, 0, [0]

    def stalled() -> bool:
        seen.append(written)
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    async def slow(requests: Requests, call: Call) -> None:
        nonlocal most, read
        async for _ in requests:
            read += 1
            if read == 1:
                await until(stalled, "the client is held back")
            most = max(most, written - read)

    async with odd(bidi=slow) as running:
        call = bidi_call(running.channel, BIDI)(timeout=60)
        for _ in range(count):
            await call.write(LARGE)
            written += 1
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    assert read == count
    # The windows of a fast line; without any back pressure it is nearly all of them.
    assert most < count / 2


@pytest.mark.asyncio
async def test_the_requests_of_a_client_that_left_end_and_then_nothing_can_be_written() -> None:
    seen: list[str] = []

    async def handler(requests: Requests, call: Call) -> None:
        await call.write(ServerInfo())
        try:
            async for _ in requests:
                pass
            seen.append("end")
            await call.write(ServerInfo())
            seen.append("written")
        except (ClientGoneError, asyncio.CancelledError):
            seen.append("gone")
            raise

    async with odd(bidi=handler) as running:
        for _ in range(20):
            seen.clear()
            call = bidi_call(running.channel, BIDI)(timeout=TIMEOUT)
            await call.read()
            call.cancel()
            await until(lambda: bool(seen) and seen[-1] != "end", "the handler has ended")
            # grpc tells the end of the stream before it tells why; the handler must not take it for a half-close.
            assert seen[-1] == "gone"
