"""The end of a server: what runs gets its time, what is left is told so, and nothing new begins."""

import asyncio
import gc
import os
import signal
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from harness.chosen_transport import CHOSEN
from harness.leaving import leaving
from harness.raw_http2 import grpc_message, raw_http2
from harness.reading import next_event, text_of
from harness.refusals import Refusal, read_to_refusal, refused
from harness.waiting import until
from tokenwire.app import build
from tokenwire.domain.cursor import Channel
from tokenwire.domain.generation import Piece
from tokenwire.engines.scripted import Emit, Pause, ScriptedEngine, WaitFor, words
from tokenwire.engines.status import EngineState
from tokenwire.server import run
from tokenwire.settings import Settings
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, GetRunRequest

LONG = 600.0
REQUEST = GenerateRequest(prompt="hi", run=RunOptions(request_id="one"))


@pytest.fixture(autouse=True)
def _a_process_that_goes_on() -> Iterator[None]:
    """Puts back what a server changes of its process, as it is its last one: children would ignore signals, too."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    thresholds = gc.get_threshold()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.set_threshold(*thresholds)


@pytest.mark.asyncio
async def test_runs_that_end_in_time_are_whole_and_nothing_new_begins_meanwhile() -> None:
    going_on = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [*words("one")[:-1], WaitFor(going_on), *words(" two")])
    async with leaving(engine, drain_seconds=LONG) as server:
        running = server.service
        stream = asyncio.create_task(text_of(running.generate.StreamGenerate(REQUEST)))
        unary = running.generate.Generate(GenerateRequest(prompt="hi"))
        await until(lambda: engine.running == 2, "both run")
        await server.begin()
        for told in (
            await refused(running.generate.Generate(GenerateRequest(prompt="new"))),
            (await read_to_refusal(running.generate.StreamGenerate(GenerateRequest(prompt="new"))))[1],
        ):
            assert (told.code, told.reason, told.retry_seconds) == (grpc.StatusCode.UNAVAILABLE, "DRAINING", 1.0)
            assert told.metadata["retryable"] == "true"
        # What is there can still be read, joined and asked for.
        (one,) = [each for each in running.app.runs.list("local") if each.request_id]
        assert (await running.runs.GetRun(GetRunRequest(run_id=one.id))).run_id == one.id
        joined = asyncio.create_task(text_of(running.generate.StreamGenerate(REQUEST)))
        attached = asyncio.create_task(text_of(running.runs.AttachRun(AttachRunRequest(run_id=one.id))))
        await until(lambda: one.readers == 3, "three read")
        assert not server.left.done()
        going_on.set()
        assert [await stream, await joined, await attached] == ["one two"] * 3
        assert (await unary).choices[0].text == "one two"
    assert (engine.started, engine.stopped) == (2, 0)


@pytest.mark.asyncio
async def test_runs_that_take_longer_end_as_shut_down_and_their_streams_say_where() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("some text")[:-1], Pause(None)])
    async with leaving(engine, drain_seconds=0.1) as server:
        running = server.service
        streams = [
            asyncio.create_task(read_to_refusal(running.generate.StreamGenerate(GenerateRequest(prompt="hi"))))
            for _ in range(20)
        ]
        unary = asyncio.create_task(refused(running.generate.Generate(GenerateRequest(prompt="hi"))))
        texts = running.app.runs
        await until(lambda: sum(each.writer.wrote_text for each in texts.list("local")) == 21, "all have text")
        server.leave.set()
        ended = [await stream for stream in streams]
        told = await unary
    for events, refusal in ended:
        last = events[-1]
        assert "".join(event.delta.text for event in events) == "some text"
        assert last.end.error.reason == "SHUTTING_DOWN"
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "SHUTTING_DOWN")
        assert refusal.metadata["cursor"] == f'{{"seq": {last.cursor.seq}}}'
        assert refusal.retry_seconds == 1.0
    assert (told.code, told.reason) == (grpc.StatusCode.DATA_LOSS, "SHUTTING_DOWN")
    assert engine.stopped == 21


@pytest.mark.asyncio
async def test_a_reader_that_lags_behind_still_gets_the_rest_and_the_end() -> None:
    text = "x" * 3_000_000
    engine = ScriptedEngine(script=lambda job: [Emit((Piece(channel=Channel(), text=text),)), Pause(None)])
    async with leaving(engine, drain_seconds=0.0) as server:
        running = server.service
        stream = running.generate.StreamGenerate(REQUEST)
        events = [await next_event(stream)]
        (one,) = running.app.runs.list("local")
        await until(lambda: one.writer.wrote_text, "the engine has written")
        server.leave.set()
        await until(lambda: one.end is not None, "the run has ended")
        while not events[-1].HasField("end"):
            events.append(await next_event(stream))
        assert await stream.code() is grpc.StatusCode.DATA_LOSS
    assert "".join(event.delta.text for event in events) == text


@pytest.mark.asyncio
async def test_runs_without_text_yet_end_as_unavailable() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with leaving(engine, drain_seconds=0.0) as server:
        stream = asyncio.create_task(read_to_refusal(server.service.generate.StreamGenerate(REQUEST)))
        unary = asyncio.create_task(refused(server.service.generate.Generate(REQUEST)))
        await until(lambda: sum(each.readers for each in server.service.app.runs.list("local")) == 2, "both read")
        server.leave.set()
        events, told = await stream
        assert events[-1].end.error.reason == "SHUTTING_DOWN"
        for refusal in (told, await unary):
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert refusal.retry_seconds == 1.0
    assert engine.stopped == 1


@pytest.mark.asyncio
async def test_probes_see_it_before_the_listener_closes_and_afterwards_nobody_listens() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with leaving(engine, drain_seconds=LONG) as server:
        running = server.service
        stream = running.generate.StreamGenerate(REQUEST)
        await next_event(stream)
        watch = HealthStub(running.channel).Watch(HealthCheckRequest())
        assert (await watch.read()).status == HealthCheckResponse.SERVING
        await server.begin()
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        # A connection made now is still served.
        async with grpc.aio.insecure_channel(running.address) as channel:
            assert (await HealthStub(channel).Check(HealthCheckRequest())).status == HealthCheckResponse.NOT_SERVING
        watch.cancel()
        stream.cancel()
        await server.left
        with pytest.raises(OSError, match="111"):
            await asyncio.open_connection("127.0.0.1", running.port)


@pytest.mark.asyncio
async def test_a_client_that_does_not_read_does_not_keep_the_server() -> None:
    large = Piece(channel=Channel(), text="x" * 200_000, token_count=1)
    engine = ScriptedEngine(script=lambda job: [Emit((large,)), *words("")])
    async with leaving(engine, drain_seconds=0.0, flush_seconds=0.1) as server, raw_http2(server.service.port) as raw:
        await raw.exhausted(
            await raw.request("/tokenwire.v1.GenerateService/StreamGenerate", grpc_message(REQUEST.SerializeToString()))
        )
        server.leave.set()
        await server.left


@pytest.mark.asyncio
async def test_a_call_that_waits_for_its_model_is_told_unavailable() -> None:
    engine = ScriptedEngine()
    engine.status.set(EngineState.LOADING)
    async with leaving(engine, drain_seconds=0.0, flush_seconds=0.1) as server:
        stream = server.service.generate.StreamGenerate(REQUEST)
        assert (await next_event(stream)).progress.phase
        server.leave.set()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    assert engine.started == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_a_second_one_stops_at_once(number: signal.Signals) -> None:
    engine = ScriptedEngine(script=lambda job: [*words("hi")[:-1], Pause(None)])
    _, told = await _signalled_twice(engine, number)
    assert told.code is grpc.StatusCode.UNAVAILABLE
    await until(lambda: engine.running == 0, "the engine is idle")


@pytest.mark.asyncio
async def test_a_stop_at_once_leaves_no_task_that_failed() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("hi")[:-1], Pause(None)])
    task, _ = await _signalled_twice(engine, signal.SIGTERM)
    await asyncio.wait([task])
    assert task.exception() is None


async def _signalled_twice(engine: ScriptedEngine, number: signal.Signals) -> tuple[asyncio.Task[None], Refusal]:
    """Runs a server with one stream, signals until it is gone; returns the run's task and what the stream was told."""
    app = build(
        Settings.model_validate({"listen": "127.0.0.1:0", "transport": CHOSEN, "drain_seconds": LONG}), [engine]
    )
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(run(app, port.set_result))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await port}") as channel:
        stream = asyncio.create_task(read_to_refusal(GenerateServiceStub(channel).StreamGenerate(REQUEST)))
        await until(lambda: engine.running == 1, "the engine runs")
        os.kill(os.getpid(), number)
        await until(lambda: app.runs._draining, "it drains")
        assert engine.running == 1
        (one,) = app.runs.list("local")
        task = one.task
        assert task is not None
        os.kill(os.getpid(), number)
        await server
        return task, (await stream)[1]
