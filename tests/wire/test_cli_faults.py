"""`tokenwire generate` against a server that breaks its promises."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from harness.command_line import tokenwire
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import ChannelEnd, ChoiceEnd, Delta, End, Event, Start
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceServicer, add_GenerateServiceServicer_to_server
from tokenwire.v1.run_pb2 import RunResult

START = Event(start=Start(run_id="run_1"), cursor=Cursor(seq=1))
HALF = Event(delta=Delta(text="half"), cursor=Cursor(seq=2))


def end(text: str, size: int | None = None) -> Event:
    digest = hashlib.sha256(text.encode()).hexdigest()
    channel = ChannelEnd(bytes=len(text) if size is None else size, sha256=digest)
    return Event(end=End(choices=[ChoiceEnd()], channels=[channel]), cursor=Cursor(seq=3))


class Broken(GenerateServiceServicer):
    """Sends these events, and then a status."""

    def __init__(self, events: Sequence[Event], code: grpc.StatusCode) -> None:
        self._events = events
        self._code = code

    async def Generate(self, request: GenerateRequest, context: Any) -> RunResult:  # noqa: N802
        raise NotImplementedError

    async def StreamGenerate(self, request: GenerateRequest, context: Any) -> AsyncIterator[Event]:  # noqa: N802
        for event in self._events:
            yield event
        if self._code is not grpc.StatusCode.OK:
            await context.abort(self._code, "Socket closed")


@asynccontextmanager
async def broken(*events: Event, code: grpc.StatusCode = grpc.StatusCode.OK) -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_GenerateServiceServicer_to_server(Broken(events, code), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([START, HALF], "without its `end` event"),
        ([START, HALF, end("Half")], "its SHA-256 differs"),
        ([START, HALF, end("half", 9)], "4 of 9 bytes were received"),
        (
            [START, HALF, Event(delta=Delta(text="more", byte_offset=5)), end("half")],
            "text at byte 5 came after byte 4",
        ),
    ],
    ids=["no end", "other text", "missing text", "gap"],
)
async def test_a_stream_that_is_not_whole_is_an_error(events: list[Event], said: str) -> None:
    async with broken(*events) as target:
        done = await tokenwire("generate", "hi", "--target", target)
    assert (done.code, done.out) == (2, "half")
    assert said in done.err


@pytest.mark.asyncio
async def test_a_broken_connection_says_how_to_go_on() -> None:
    async with broken(START, HALF, code=grpc.StatusCode.UNAVAILABLE) as target:
        done = await tokenwire("generate", "hi", "--target", target)
    assert (done.code, done.out) == (2, "half")
    assert "UNAVAILABLE: the connection to the server broke. " in done.err
    assert "tokenwire runs attach run_1 --after '{\"seq\":2}'" in done.err
