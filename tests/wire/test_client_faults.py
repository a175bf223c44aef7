"""The Python client on a line that breaks, and with servers that break their promises."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from harness.fault_proxy import fault_proxy
from harness.leaving import leaving
from harness.service import service
from harness.waiting import until
from tokenwire.engines.scripted import Pause, ScriptedEngine, WaitFor, words
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import ChannelEnd, ChoiceEnd, Delta, Detached, End, Event, Heartbeat, Progress, Start
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_service_pb2 import AttachRunRequest
from tokenwire_client import (
    AsyncClient,
    BrokenError,
    Code,
    Failure,
    IntegrityError,
    Policy,
    RefusedError,
    RunFailedError,
    TokenwireClientError,
)

TEXT = "Once upon a time, «ça va?» — 水が流れる. 👩‍👩‍👧 " * 6
QUICK = Policy(first_wait=0.001, longest_wait=0.02)


class CuttingProxy:
    """Breaks each connection once it has carried so many bytes to the client.

    Attributes:
        limit: how many; None: it breaks nothing.
        cuts: how many it has broken.
    """

    def __init__(self, target: int, limit: int | None) -> None:
        self.limit = limit
        self.cuts = 0
        self._target = target

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        upstream = asyncio.create_task(_copy(reader, far_writer))
        carried = 0
        try:
            while self.limit is None or carried < self.limit:
                data = await far_reader.read(65536 if self.limit is None else self.limit - carried)
                if not data:
                    break
                carried += len(data)
                writer.write(data)
                await writer.drain()
            else:
                self.cuts += 1
        except ConnectionError:
            pass
        finally:
            upstream.cancel()
            await asyncio.wait([upstream])
            for one in (writer, far_writer):
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def cutting(target: int, limit: int | None) -> AsyncIterator[tuple[str, CuttingProxy]]:
    proxy = CuttingProxy(target, limit)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", proxy
    finally:
        server.close()
        await server.wait_closed()


class Turns:
    """An engine that writes the next word when the last one was read, so that each is a message of its own."""

    def __init__(self) -> None:
        self._turns = [asyncio.Event() for _ in words(TEXT)]
        self._released = iter(self._turns)
        steps = [step for turn, word in zip(self._turns, words(TEXT), strict=True) for step in (WaitFor(turn), word)]
        self.engine = ScriptedEngine(script=lambda job: steps)

    def release(self) -> None:
        turn = next(self._released, None)
        if turn is not None:
            turn.set()


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [601, 703, 857, 1203])
async def test_a_line_that_is_cut_at_any_byte_is_taken_up_again_without_gap_or_duplicate(limit: int) -> None:
    turns = Turns()
    failures: list[Failure] = []
    kinds: list[str | None] = []
    got = ""
    async with (
        service(turns.engine) as running,
        cutting(running.port, limit) as (address, proxy),
        AsyncClient(address, policy=QUICK) as client,
        client.stream("hi", on_reconnect=lambda attempt, failure, wait: failures.append(failure)) as stream,
    ):
        async for event in stream:
            kinds.append(event.WhichOneof("event"))
            got += event.delta.text
            turns.release()
    assert got == stream.text == TEXT
    assert (kinds.count("start"), kinds.count("dispatched"), kinds.count("end")) == (1, 1, 1)
    assert proxy.cuts >= 1
    assert len(failures) >= 1
    assert all(one.broken for one in failures)
    assert turns.engine.started == 1


@pytest.mark.asyncio
async def test_a_line_that_stays_broken_is_given_up_with_what_came_and_can_be_gone_on_with() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("one two")[:-1], Pause(None)])
    policy = Policy(attempts=2, first_wait=0.001, longest_wait=0.01)
    async with (
        service(engine) as running,
        cutting(running.port, 0) as (dead, _),
        fault_proxy(running.port) as proxy,
        AsyncClient(f"127.0.0.1:{proxy.port}", policy=policy) as client,
        AsyncClient(running.address) as other,
    ):

        async def read() -> None:
            async with client.stream("hi") as stream:
                async for piece in stream.pieces():
                    if "two" in piece:
                        proxy.lead(int(dead.rpartition(":")[2]))
                        await proxy.cut()

        with pytest.raises(BrokenError) as caught:
            await read()
        broken = caught.value
        assert (broken.text, broken.code) == ("one two", Code.UNAVAILABLE)
        assert engine.running == 1, "a run that can be gone on with is not cancelled"
        async with other.attach(broken.run_id, after=broken.cursor) as rest:
            await other.cancel(broken.run_id)
            assert [event.WhichOneof("event") async for event in rest] == ["end"]


@pytest.mark.asyncio
async def test_a_submit_whose_answer_was_lost_is_sent_again_and_runs_once() -> None:
    going_on = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [WaitFor(going_on), *words("hello")])
    async with (
        service(engine) as running,
        cutting(running.port, 150) as (address, proxy),
        AsyncClient(address, policy=QUICK) as client,
    ):
        answer = asyncio.create_task(client.generate("hi"))
        await until(lambda: engine.running == 1 and proxy.cuts >= 1, "the run is there, and its answer lost")
        proxy.limit = None
        going_on.set()
        assert (await answer).text == "hello"
        assert len(running.app.runs.list("local")) == 1
    assert engine.started == 1


@pytest.mark.asyncio
async def test_a_server_that_drains_ends_the_run_with_its_error_and_text() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("some text")[:-1], Pause(None)])
    async with leaving(engine, drain_seconds=0.0) as server, AsyncClient(server.service.address) as client:

        async def read() -> None:
            async with client.stream("hi") as stream:
                async for piece in stream.pieces():
                    if "text" in piece:
                        server.leave.set()

        with pytest.raises(RunFailedError) as caught:
            await read()
    assert (caught.value.reason, caught.value.text) == ("SHUTTING_DOWN", "some text")


# From here on the servers are scripted.
START = Event(start=Start(run_id="run_1"), cursor=Cursor(seq=1))
HALF = Event(delta=Delta(text="half"), cursor=Cursor(seq=2))
REST = Event(delta=Delta(text=" rest", byte_offset=4), cursor=Cursor(seq=3))
Script = Callable[[Any, int], AsyncIterator[Event]]


def end(text: str, size: int | None = None) -> Event:
    digest = hashlib.sha256(text.encode()).hexdigest()
    channel = ChannelEnd(bytes=len(text) if size is None else size, sha256=digest)
    return Event(end=End(choices=[ChoiceEnd()], channels=[channel]), cursor=Cursor(seq=4))


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[str, list[Any]]]:
    """Serves StreamGenerate and AttachRun by a script, which gets the context and the call's number, from 0."""
    requests: list[Any] = []

    async def serve(request: Any, context: Any) -> AsyncIterator[Event]:
        requests.append(request)
        async for event in script(context, len(requests) - 1):
            yield event

    server = grpc.aio.server()
    for service_name, method, kind in (
        ("tokenwire.v1.GenerateService", "StreamGenerate", GenerateRequest),
        ("tokenwire.v1.RunService", "AttachRun", AttachRunRequest),
    ):
        handler = grpc.unary_stream_rpc_method_handler(
            serve, request_deserializer=kind.FromString, response_serializer=Event.SerializeToString
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service_name, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", requests
    finally:
        await server.stop(0)


async def failing(script: Script) -> TokenwireClientError:
    """Returns what a client raises that reads a scripted stream."""
    async with scripted(script) as (address, _), AsyncClient(address, policy=QUICK) as client:
        with pytest.raises(TokenwireClientError) as caught:
            await client.generate("hi")
    return caught.value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([START, HALF], "without its `end` event"),
        ([START, HALF, end("Half")], "its SHA-256 differs"),
        ([START, HALF, end("half", 9)], "4 of 9 bytes were received"),
        ([START, HALF, Event(delta=Delta(text="x", byte_offset=5))], "text at byte 5 came after byte 4"),
        ([START, HALF, Event(delta=Delta(text="HALF"))], "came again, and is another one"),
        ([START, HALF, end("half"), Event(progress=Progress())], "after the run's end"),
        ([START, HALF, Event(start=Start(run_id="run_2"))], "goes on with another run"),
    ],
    ids=["no end", "other text", "missing text", "gap", "other repeat", "more after the end", "other run"],
)
async def test_a_stream_that_is_not_what_was_written_is_an_error_with_the_text_so_far(
    events: list[Event], said: str
) -> None:
    async def script(context: Any, call: int) -> AsyncIterator[Event]:
        for event in events:
            yield event

    error = await failing(script)
    assert isinstance(error, IntegrityError)
    assert said in error.message
    assert (error.text, error.run_id) == ("half", "run_1")


@pytest.mark.asyncio
async def test_a_line_that_falls_silent_is_taken_for_broken_and_heartbeats_keep_it() -> None:
    beats: list[int] = []

    async def script(context: Any, call: int) -> AsyncIterator[Event]:
        if call == 0:
            yield START
            yield HALF
            for beat in range(4):
                await asyncio.sleep(0.1)
                beats.append(beat)
                yield Event(heartbeat=Heartbeat(), cursor=Cursor(seq=2))
            await asyncio.Event().wait()
        yield REST
        yield end("half rest")

    failures: list[Failure] = []
    async with (
        scripted(script) as (address, requests),
        AsyncClient(address, policy=Policy(first_wait=0.001, silence=0.25)) as client,
        client.stream("hi", on_reconnect=lambda attempt, failure, wait: failures.append(failure)) as stream,
    ):
        kinds = [event.WhichOneof("event") async for event in stream]
    assert kinds == ["start", "delta", "delta", "end"]
    assert stream.text == "half rest"
    assert len(beats) == 4
    assert [one.message for one in failures] == ["nothing came for 0.25 s"]
    assert requests[1] == AttachRunRequest(run_id="run_1", after=Cursor(seq=2))


@pytest.mark.asyncio
async def test_a_view_that_the_server_stops_is_taken_up_again_when_and_where_it_says() -> None:
    detached = Event(detached=Detached(retry_after_ms=30), cursor=Cursor(seq=2, epoch=7))

    async def script(context: Any, call: int) -> AsyncIterator[Event]:
        if call == 0:
            yield START
            yield HALF
            yield detached
            await context.abort(grpc.StatusCode.ABORTED, "too slow")
        yield REST
        yield end("half rest")

    waits: list[float] = []
    async with (
        scripted(script) as (address, requests),
        AsyncClient(address, policy=QUICK) as client,
        client.stream("hi", on_reconnect=lambda attempt, failure, wait: waits.append(wait)) as stream,
    ):
        assert (await stream.result()).text == "half rest"
    assert len(waits) == 1
    assert waits[0] >= 0.03
    assert requests[1].after == detached.cursor


@pytest.mark.asyncio
async def test_what_a_server_says_for_good_is_not_tried_again() -> None:
    calls: list[int] = []

    async def script(context: Any, call: int) -> AsyncIterator[Event]:
        calls.append(call)
        yield START
        yield HALF
        await context.abort(grpc.StatusCode.DATA_LOSS, "the journal is lost")

    error = await failing(script)
    assert isinstance(error, RefusedError)
    assert (error.code, error.text, calls) == (Code.DATA_LOSS, "half", [0])


@pytest.mark.asyncio
@pytest.mark.parametrize("status", ["lost", "none"])
async def test_an_end_whose_status_was_lost_or_does_not_come_is_an_end(status: str) -> None:
    async def script(context: Any, call: int) -> AsyncIterator[Event]:
        yield START
        yield HALF
        yield end("half")
        if status == "none":
            await asyncio.Event().wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async with scripted(script) as (address, requests), AsyncClient(address, policy=QUICK) as client:
        assert (await client.generate("hi")).text == "half"
    assert len(requests) == 1
