"""A client that leaves, wherever its call is: the reader is gone, the engine stops, and everything is cleaned up."""

import asyncio
from contextvars import ContextVar
from typing import Any

import grpc
import pytest

from harness.byte_calls import stream_call
from harness.endpoints import STREAM, odd
from harness.raw_http2 import grpc_message, raw_http2
from harness.reading import next_event, text_of
from harness.service import Service, service
from harness.waiting import until
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Channel
from tokenwire.domain.generation import Piece
from tokenwire.engines.scripted import Emit, Pause, ScriptedEngine, Step, WaitFor, words
from tokenwire.transport.call import Call, ClientGoneError
from tokenwire.v1.finish_pb2 import FINISH_REASON_TIME_LIMIT
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_service_pb2 import AttachRunRequest
from tokenwire.v1.server_service_pb2 import ServerInfo

REQUEST = GenerateRequest(prompt="hi")
METHOD = "/tokenwire.v1.GenerateService/StreamGenerate"
LARGE: list[Step] = [
    Emit(tuple(Piece(channel=Channel(), text="x" * 10_000, token_count=1) for _ in range(50))),
    Emit(tuple(Piece(channel=Channel(), text="x" * 10_000, token_count=1) for _ in range(14))),
    Pause(None),
]


def _run(running: Service) -> Run:
    (run,) = running.app.runs.list("local")
    return run


async def _is_gone(running: Service, engine: ScriptedEngine) -> None:
    """Waits until nothing is left of the one run's reader and of the engine's work."""
    await until(lambda: (engine.running, engine.stopped) == (0, 1), "the engine has stopped")
    run = _run(running)
    await until(lambda: run.end is not None, "the run has ended")
    assert run.readers == 0
    assert run.error is not None
    assert run.error.reason == "ORPHANED"


@pytest.mark.asyncio
async def test_a_cancel_before_the_first_token_stops_the_engine() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with service(engine) as running:
        call = running.generate.StreamGenerate(REQUEST)
        await next_event(call)
        call.cancel()
        await _is_gone(running, engine)
        assert not _run(running).log.channels


@pytest.mark.asyncio
async def test_a_cancel_while_the_handler_waits_for_the_engine_stops_it_and_keeps_the_text() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("one two three")[:-1], Pause(None)])
    async with service(engine) as running:
        call = running.generate.StreamGenerate(REQUEST)
        text = ""
        while text != "one two three":
            text += (await next_event(call)).delta.text
        call.cancel()
        await _is_gone(running, engine)
        log = _run(running).log.channel(Channel())
        assert log is not None
        assert log.text == b"one two three"


@pytest.mark.asyncio
async def test_a_cancel_of_a_unary_call_stops_the_engine() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with service(engine) as running:
        call = running.generate.Generate(REQUEST)
        await until(lambda: engine.running == 1, "the engine works")
        call.cancel()
        await _is_gone(running, engine)


@pytest.mark.asyncio
async def test_a_cancel_while_the_handler_is_blocked_in_a_write_stops_the_engine() -> None:
    engine = ScriptedEngine(script=lambda job: LARGE)
    async with service(engine) as running, raw_http2(running.port) as raw:
        stream = await raw.request(METHOD, grpc_message(REQUEST.SerializeToString()))
        await raw.exhausted(stream)
        # All is written, and the client's window holds a tenth of it.
        await until(lambda: _run(running).log.size > 600_000, "the engine did not wait for the reader")
        await raw.reset(stream)
        await _is_gone(running, engine)


@pytest.mark.asyncio
async def test_a_connection_that_breaks_while_the_handler_is_blocked_in_a_write_stops_the_engine() -> None:
    engine = ScriptedEngine(script=lambda job: LARGE)
    async with service(engine) as running:
        async with raw_http2(running.port) as raw:
            await raw.exhausted(await raw.request(METHOD, grpc_message(REQUEST.SerializeToString())))
        await _is_gone(running, engine)


@pytest.mark.asyncio
async def test_a_closed_channel_stops_the_engine() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with service(engine) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            call = stream_call(channel, METHOD)(REQUEST.SerializeToString())
            await call.read()
        await _is_gone(running, engine)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_deadline_that_passes_stops_the_engine(kind: str) -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with service(engine) as running:
        call: Any
        if kind == "unary":
            call = running.generate.Generate(REQUEST, timeout=1.0)
        else:
            call = running.generate.StreamGenerate(REQUEST, timeout=1.0)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await _is_gone(running, engine)


@pytest.mark.asyncio
async def test_a_call_without_a_deadline_ends_by_the_servers_own_limit() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with service(engine, max_duration_seconds=0.2) as running:
        events = [event async for event in running.generate.StreamGenerate(REQUEST)]
    assert events[-1].end.choices[0].finish_reason == FINISH_REASON_TIME_LIMIT
    assert engine.stopped == 1


@pytest.mark.asyncio
async def test_a_reader_that_leaves_takes_nothing_from_another_one() -> None:
    going_on = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [*words("one two")[:-1], WaitFor(going_on), *words("three")])
    async with service(engine) as running:
        first = running.generate.StreamGenerate(REQUEST)
        start = await next_event(first)
        second = running.runs.AttachRun(AttachRunRequest(run_id=start.start.run_id))
        run = _run(running)
        await until(lambda: run.readers == 2, "both read")
        first.cancel()
        await until(lambda: run.readers == 1, "one reader has left")
        going_on.set()
        text = await text_of(second)
    assert text == "one twothree"
    assert engine.stopped == 0


@pytest.mark.asyncio
async def test_many_cancels_at_any_moment_leave_nothing() -> None:
    engine = ScriptedEngine(seconds_per_token=0.002)
    async with service(engine) as running:

        async def leave_after(messages: int) -> None:
            call = running.generate.StreamGenerate(REQUEST)
            for _ in range(messages):
                await next_event(call)
            call.cancel()

        await asyncio.gather(*(leave_after(number % 8) for number in range(200)))
        await until(lambda: engine.running == 0, "the engine is idle")
        await until(lambda: all(run.end for run in running.app.runs.list("local")), "every run has ended")
        assert not any(run.readers for run in running.app.runs.list("local"))
        # And the next one is served.
        await running.generate.Generate(REQUEST)


@pytest.mark.asyncio
@pytest.mark.parametrize(("blocked_in", "window"), [("await", 100_000), ("write", 65_535)])
async def test_a_cancelled_handler_ends_in_its_own_task_and_context(blocked_in: str, window: int) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="")
    ended: list[tuple[str, bool]] = []

    async def handler(request: Any, call: Call) -> None:
        token = variable.set("set")
        task = asyncio.current_task()
        left = ""
        try:
            await call.write(ServerInfo(version="x" * 32_768))
            while blocked_in == "write":
                await call.write(ServerInfo(version="x" * 32_768))
            await asyncio.Event().wait()
        except (asyncio.CancelledError, ClientGoneError) as error:
            left = type(error).__name__
            raise
        finally:
            # Raises ValueError in any other context.
            variable.reset(token)
            ended.append((left, asyncio.current_task() is task))

    async with odd(stream=handler) as running, raw_http2(running.port, window=window) as raw:
        stream = await raw.request(STREAM)
        enough = window if blocked_in == "write" else 32_768
        await raw.wait(lambda: len(raw.data[stream]) >= enough, "the handler is blocked")
        await raw.reset(stream)
        await until(lambda: bool(ended), "the handler has ended")
    assert ended in ([("CancelledError", True)], [("ClientGoneError", True)])
