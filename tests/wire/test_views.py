"""What a stream says in silence, and when its server goes: over a real channel."""

import asyncio
import json
from itertools import pairwise

import grpc
import pytest

from harness.leaving import leaving
from harness.reading import next_event
from harness.refusals import read_to_refusal, refused
from harness.service import service
from harness.waiting import until
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import DetachReason
from tokenwire.domain.generation import Piece
from tokenwire.engines.scripted import Emit, Pause, ScriptedEngine, WaitFor, words
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.event_pb2 import DETACH_REASON_DRAINING, DETACH_REASON_MOVED, Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RunOptions

HELD = Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=1000))


@pytest.mark.asyncio
async def test_a_stream_in_silence_has_heartbeats_with_its_last_cursor_before_and_after_the_first_text() -> None:
    first, then = asyncio.Event(), asyncio.Event()
    script = [WaitFor(first), *words("one")[:-1], WaitFor(then), *words(" two")]
    engine = ScriptedEngine(script=lambda job: script)
    async with service(engine, heartbeat_seconds=0.05) as running:
        stream = running.generate.StreamGenerate(GenerateRequest(prompt="hi"))
        events: list[Event] = []
        for goes_on in (first, then, None):
            before = len(events)
            while sum(event.HasField("heartbeat") for event in events[before:]) < 2 and goes_on:
                events.append(await next_event(stream))
            if goes_on:
                goes_on.set()
        while not events[-1].HasField("end"):
            events.append(await next_event(stream))
        assert await stream.code() is grpc.StatusCode.OK
    for before_it, event in pairwise(events):
        if event.HasField("heartbeat"):
            assert event.cursor == before_it.cursor
            assert event.elapsed_ms >= before_it.elapsed_ms
    kinds = [event.WhichOneof("event") for event in events if not event.HasField("heartbeat")]
    assert kinds == ["start", "dispatched", "delta", "delta", "end"]


@pytest.mark.asyncio
async def test_calls_with_one_answer_are_not_disturbed_by_heartbeats() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(0.2), *words("all of it")])
    async with service(engine, heartbeat_seconds=0.01) as running:
        result = await running.generate.Generate(GenerateRequest(prompt="hi"))
    assert result.choices[0].text == "all of it"


@pytest.mark.parametrize(
    ("reason", "told", "retry_ms"),
    [(DetachReason.DRAINING, DETACH_REASON_DRAINING, 1000), (DetachReason.MOVED, DETACH_REASON_MOVED, 100)],
    ids=["draining", "moved"],
)
@pytest.mark.asyncio
async def test_readers_of_a_run_that_is_handed_over_are_told_where_they_were_and_that_it_goes_on(
    reason: DetachReason, told: int, retry_ms: int
) -> None:
    piece = Piece(channel=Channel(), text="some text", token_count=2)
    engine = ScriptedEngine(script=lambda job: [Emit((piece,)), Pause(None)])
    async with service(engine) as running:
        options = RunOptions(request_id="one", detached=True)
        request = GenerateRequest(prompt="hi", run=options)
        plain = asyncio.create_task(read_to_refusal(running.generate.StreamGenerate(request)))
        # What this one's buffer holds back is not sent: its cursor stays before it.
        holding = GenerateRequest(prompt="hi", run=options, delivery=HELD)
        held = asyncio.create_task(read_to_refusal(running.generate.StreamGenerate(holding)))
        unary = asyncio.create_task(refused(running.generate.Generate(request)))
        await until(lambda: _run_of(running.app.runs.list("local")) is not None, "three read, and there is text")
        run = _run_of(running.app.runs.list("local"))
        assert run is not None
        run.handed_over = reason
        run.log.notify()
        for reader, texts in ((plain, ["some text"]), (held, [])):
            events, refusal = await reader
            assert [event.delta.text for event in events if event.HasField("delta")] == texts
            last = events[-1]
            assert (last.detached.reason, last.detached.retry_after_ms) == (told, retry_ms)
            assert last.detached.resume_within_ms == 30_000
            assert last.cursor == events[-2].cursor
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, reason.name)
            assert (refusal.retry_seconds, refusal.metadata["retryable"]) == (retry_ms / 1000, "true")
            assert refusal.metadata["run_id"] == run.id
            assert json.loads(refusal.metadata["cursor"]) == {"seq": last.cursor.seq}
        refusal = await unary
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, reason.name)
        assert (refusal.metadata["run_id"], refusal.metadata["cursor"]) == (run.id, '{"seq": 0}')
        # The engine was not stopped by its readers' leaving.
        assert (run.readers, run.end) == (0, None)


def _run_of(runs: list[Run]) -> Run | None:
    return next((run for run in runs if run.readers == 3 and run.log.channels), None)


@pytest.mark.asyncio
async def test_a_run_that_dies_with_its_process_is_not_detached_but_ended() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("some text")[:-1], Pause(None)])
    async with leaving(engine, drain_seconds=0.1) as server:
        stream = server.service.generate.StreamGenerate(GenerateRequest(prompt="hi"))
        reading = asyncio.create_task(read_to_refusal(stream))
        await until(lambda: engine.running == 1, "it runs")
        server.leave.set()
        events, refusal = await reading
    assert not any(event.HasField("detached") for event in events)
    assert (events[-1].end.error.reason, refusal.reason) == ("SHUTTING_DOWN", "SHUTTING_DOWN")
