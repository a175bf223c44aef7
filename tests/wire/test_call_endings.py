"""What every transport promises of how a call ends: by its handler, by its client, by its deadline, by a drain.

The promises are written down in docs/decisions/0015.
"""

import asyncio
import base64
from contextlib import suppress
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import grpc
import pytest
from google.rpc.status_pb2 import Status
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, TrailersReceived

from harness.byte_calls import stream_call
from harness.raw_http2 import RawHttp2, grpc_message, raw_http2
from harness.transports import BIDI, GATHER, STREAM, TRANSPORTS, UNARY, Transport, Word
from harness.waiting import until
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import Call, ClientGoneError, Handler, Requests
from wire.test_call_promises import connected, messages, opened

OK, CANCELLED, UNIMPLEMENTED = "0", "1", "12"
LARGE = b"l" * 60_000
VARIABLE: ContextVar[str] = ContextVar("variable", default="")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each transport in turn."""
    return TRANSPORTS[request.param]


def refuses(message: str = "not here") -> Handler:
    async def handler(request: Any, call: Call) -> bytes:
        raise TokenwireError(Code.NOT_FOUND, "RUN_NOT_FOUND", message)

    return handler


def events_of(raw: RawHttp2) -> list[Event]:
    """Returns the list of all that comes from now on."""
    events: list[Event] = []
    take = raw._take

    def noting(event: Event) -> None:
        events.append(event)
        take(event)

    raw._take = noting  # type: ignore[method-assign]
    return events


# By the handler.


@pytest.mark.asyncio
@pytest.mark.parametrize("method", [UNARY, GATHER])
async def test_what_is_returned_is_the_one_answer_of_a_call_that_has_one(transport: Transport, method: str) -> None:
    async def answers(request: Any, call: Call) -> Word:
        return Word("answer")

    async with connected(transport, {method: answers}) as (_, raw):
        stream = await raw.request(method)
        assert (await raw.answered(stream))["grpc-status"] == OK
        assert messages(bytes(raw.data[stream])) == [b"answer"]


@pytest.mark.asyncio
@pytest.mark.parametrize("method", [UNARY, STREAM, GATHER, BIDI])
async def test_a_refusal_is_status_message_and_details_in_one_block_of_headers(
    transport: Transport, method: str
) -> None:
    # What comes before any header may be tried again by whoever called, without a second thought.
    async with connected(transport, {method: refuses()}) as (_, raw):
        events = events_of(raw)
        stream = await raw.request(method)
        headers = await raw.answered(stream)
        assert (headers["grpc-status"], headers["grpc-message"]) == ("5", "not here")
        assert _details(headers) == Status(code=5, message="RUN_NOT_FOUND in rpc-0")
        assert sum(isinstance(event, ResponseReceived | TrailersReceived | DataReceived) for event in events) == 1


@pytest.mark.asyncio
async def test_what_was_written_before_an_error_comes_before_its_status(transport: Transport) -> None:
    async def breaks(request: Any, call: Call) -> None:
        for _ in range(3):
            await call.write(LARGE)
        await refuses()(request, call)

    async with connected(transport, {STREAM: breaks}) as (_, raw):
        stream = await raw.request(STREAM)
        await raw.exhausted(stream)
        assert "grpc-status" not in raw.headers[stream], "a status overtakes no message"
        await opened(raw, stream)
        assert (await raw.answered(stream))["grpc-status"] == "5"
        assert messages(bytes(raw.data[stream])) == [LARGE] * 3


@pytest.mark.asyncio
@pytest.mark.parametrize("message", ["🌊" * 300, "x" * 5000, "line\nline %41 «»"], ids=["wide", "long", "odd"])
async def test_a_status_message_is_cut_between_characters_and_its_details_arrive(
    transport: Transport, message: str
) -> None:
    async with connected(transport, {UNARY: refuses(message)}) as (_, raw):
        headers = await raw.answered(await raw.request(UNARY))
        told = unquote(headers["grpc-message"])
        assert message.startswith(told)
        assert told == message if len(message.encode()) <= 500 else 490 < len(told.encode()) <= 500
        assert _details(headers).code == 5


@pytest.mark.asyncio
async def test_a_method_that_is_not_there_is_unimplemented(transport: Transport) -> None:
    async with connected(transport, {UNARY: refuses()}) as (_, raw):
        for method in ("/test.Promises/Nothing", "/nothing.Nothing/Unary", "/"):
            assert (await raw.answered(await raw.request(method)))["grpc-status"] == UNIMPLEMENTED


@pytest.mark.asyncio
async def test_a_status_follows_a_first_message_that_was_stuck_and_given_up(transport: Transport) -> None:
    stuck = asyncio.Event()

    async def gives_up(request: Any, call: Call) -> None:
        writing = asyncio.ensure_future(call.write(LARGE))
        await raw.wait(lambda: bool(raw.headers[stream]), "the headers are there")
        writing.cancel()
        await asyncio.wait([writing])
        stuck.set()
        await refuses()(request, call)

    async with connected(transport, {STREAM: gives_up}, window=0) as (_, raw):
        stream = await raw.request(STREAM)
        await stuck.wait()
        assert "grpc-status" not in raw.headers[stream]
        await opened(raw, stream)
        assert (await raw.answered(stream))["grpc-status"] == "5"
        # A message whose write was cancelled may have been taken.
        assert messages(bytes(raw.data[stream])) in ([LARGE], [])


@pytest.mark.asyncio
async def test_a_stream_that_no_status_reaches_is_reset_and_its_connection_serves_on(transport: Transport) -> None:
    async def cut(request: Any, call: Call) -> None:
        writing = asyncio.ensure_future(call.write(LARGE))
        await until(lambda: len(raw.data[stuck]) >= 100, "its window is full")
        writing.cancel()
        await asyncio.wait([writing])
        await refuses()(request, call)

    async def answers(request: Any, call: Call) -> bytes:
        return b""

    handlers: dict[str, Handler] = {STREAM: cut, UNARY: answers}
    async with connected(transport, handlers, window=100, status_seconds=0.2) as (_, raw):
        # grpc's core holds the first call that it ever gets.
        await raw.answered(await raw.request(UNARY))
        stuck = await raw.request(STREAM)
        await raw.exhausted(stuck)
        while stuck not in raw.ended:
            # And the last one until another comes.
            await raw.answered(await raw.request(UNARY))
        assert raw.headers[stuck].get("grpc-status") != OK
        assert not raw.closed


# By the client, the deadline, or the line.


class Watched:
    """A handler that blocks in a way of its own, and what becomes of it."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.inside = asyncio.Event()
        self.seen: list[tuple[str, int, bool, str]] = []

    async def __call__(self, request: Any, call: Call) -> None:
        task = asyncio.current_task()
        assert task is not None
        token = VARIABLE.set("own")
        error = ""
        try:
            await self._block(request, call)
        except (asyncio.CancelledError, ClientGoneError) as caught:
            error = type(caught).__name__
            raise
        finally:
            same = asyncio.current_task() is task
            value = VARIABLE.get()
            # Raises in a foreign context.
            VARIABLE.reset(token)
            self.seen.append((error, task.cancelling(), same, value))

    async def _block(self, request: Any, call: Call) -> None:
        if self.how == "waiting":
            self.inside.set()
            await asyncio.Event().wait()
        if self.how == "reading":
            await anext(request)
            self.inside.set()
            async for _ in request:
                raise AssertionError
            # It cannot be told from a half-close until now.
            await call.write(b"")
            await asyncio.Event().wait()
        while True:
            self.inside.set()
            await call.write(LARGE)


HOW = ["waiting", "writing", "reading"]


@pytest.mark.asyncio
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("leaving", ["reset", "disconnect", "deadline"])
async def test_a_handler_whose_client_is_gone_ends_once_in_its_own_task_and_context(
    transport: Transport, how: str, leaving: str
) -> None:
    watched = Watched(how)
    method = BIDI if how == "reading" else STREAM
    late = [("grpc-timeout", "150m")] if leaving == "deadline" else []
    async with transport({method: watched}) as served:
        async with raw_http2(served.port, window=100_000) as raw:
            stream = await raw.request(method, headers=late, end=how != "reading")
            await asyncio.wait_for(watched.inside.wait(), 20)
            if how == "writing":
                await raw.wait(lambda: bool(raw.data[stream]), "it writes")
            if leaving == "reset":
                await raw.reset(stream)
            if leaving != "disconnect":
                await until(lambda: bool(watched.seen), "the handler has ended")
        await until(lambda: bool(watched.seen), "the handler has ended")
        await asyncio.sleep(0)
    ((error, cancelling, same_task, value),) = watched.seen
    # In a write either may come; in any other place it is the task's own cancellation.
    assert error == "CancelledError" or (how != "waiting" and error == "ClientGoneError")
    assert cancelling == (1 if error == "CancelledError" else cancelling) <= 1
    assert (same_task, value) == (True, "own")


@pytest.mark.asyncio
async def test_a_deadline_is_told_to_a_client_that_waits(transport: Transport) -> None:
    watched = Watched("waiting")
    async with connected(transport, {STREAM: watched}) as (_, raw):
        stream = await raw.request(STREAM, headers=[("grpc-timeout", "100m")])
        headers = await raw.answered(stream)
        await until(lambda: bool(watched.seen), "the handler has ended")
        # The client's own clock is the one that counts; a server may say so, or reset the stream.
        assert headers.get("grpc-status") in (None, "4", CANCELLED)


@pytest.mark.asyncio
async def test_a_cancellation_comes_once_and_whoever_goes_on_learns_it_from_a_write(transport: Transport) -> None:
    seen: list[str] = []
    inside = asyncio.Event()

    async def stubborn(request: Any, call: Call) -> None:
        try:
            inside.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
        # Things can be put in order.
        await asyncio.sleep(0.01)
        seen.append("in order")
        try:
            await call.write(b"too late")
        except ClientGoneError:
            seen.append("gone")
        raise asyncio.CancelledError

    async with connected(transport, {STREAM: stubborn}) as (_, raw):
        stream = await raw.request(STREAM)
        await inside.wait()
        await raw.reset(stream)
        await until(lambda: len(seen) == 3, "it has ended")
    assert seen == ["cancelled", "in order", "gone"]


@pytest.mark.asyncio
async def test_a_call_that_has_ended_well_is_not_cancelled_when_its_connection_goes(transport: Transport) -> None:
    seen: list[int] = []

    async def answers(request: Any, call: Call) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda task: seen.append(task.cancelling()))
        await call.write(b"")

    async with transport({STREAM: answers}) as served:
        async with raw_http2(served.port) as raw:
            await raw.answered(await raw.request(STREAM))
        await until(lambda: bool(seen), "it has ended")
    assert seen == [0]


@pytest.mark.asyncio
async def test_requests_of_a_client_that_left_are_no_half_close(transport: Transport) -> None:
    answered: list[str] = []

    async def gathers(requests: Requests, call: Call) -> None:
        try:
            async for _ in requests:
                pass
            await call.write(b"all of it")
            answered.append("written")
        except (ClientGoneError, asyncio.CancelledError):
            answered.append("gone")
            raise

    async with connected(transport, {BIDI: gathers}) as (_, raw):
        for _ in range(10):
            stream = await raw.request(BIDI, grpc_message(b""), end=False)
            await raw.reset(stream)
        whole = await raw.request(BIDI, grpc_message(b""))
        assert (await raw.answered(whole))["grpc-status"] == OK
    # A call that was reset before it began may have had no handler.
    assert answered.count("written") == 1


# By a drain.


@pytest.mark.asyncio
async def test_a_drain_tells_connections_takes_no_calls_and_lets_those_that_run_end(transport: Transport) -> None:
    inside, goes_on = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, call: Call) -> None:
        inside.set()
        await goes_on.wait()
        await call.write(b"done")

    async with transport({STREAM: handler}) as served:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            call = stream_call(channel, STREAM)(b"")
            await inside.wait()
            async with raw_http2(served.port) as raw:
                stopping = asyncio.ensure_future(served.stop(20))
                await raw.wait(lambda: raw.goaway is not None, "an idle connection is told")
                assert raw.goaway == ErrorCodes.NO_ERROR
            await _nobody_listens(served.port)
            assert not stopping.done()
            goes_on.set()
            assert [message async for message in call] == [b"done"]
            assert await call.code() is grpc.StatusCode.OK
        await stopping


async def _nobody_listens(port: int) -> None:
    """Waits until no connection is taken any more: grpc closes its listener a moment after it has said goodbye."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionError:
                continue
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.asyncio
async def test_what_runs_when_a_drain_is_over_is_cancelled_before_the_drain_returns(transport: Transport) -> None:
    watched = Watched("waiting")
    async with connected(transport, {STREAM: watched}) as (served, raw):
        await raw.request(STREAM)
        await watched.inside.wait()
        await served.stop(0)
        await until(lambda: bool(watched.seen), "the handler has ended")
        assert watched.seen == [("CancelledError", 1, True, "own")]


def _details(headers: dict[str, str]) -> Status:
    data = headers["grpc-status-details-bin"]
    return Status.FromString(base64.b64decode(data + "=" * (-len(data) % 4)))
