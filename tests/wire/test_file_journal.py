"""Streams over a restart of the gateway, with the journal in files."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.leaving import leaving
from harness.reading import next_event, text_of
from harness.refusals import read_to_refusal
from harness.service import service
from harness.waiting import until
from tokenwire.engines.scripted import Pause, ScriptedEngine, words
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest, GetRunRequest

REQUEST = GenerateRequest(prompt="hi", run=RunOptions(request_id="one", detached=True))


def in_files(folder: Path) -> str:
    return f"file:{folder / 'journal'}"


def text(events: list[Event]) -> str:
    return "".join(event.delta.text for event in events)


@pytest.mark.asyncio
async def test_a_finished_answer_is_read_after_a_restart_and_its_request_starts_no_other(tmp_path: Path) -> None:
    async with service(ScriptedEngine(script=lambda job: words("a whole answer")), journal=in_files(tmp_path)) as one:
        before = [event async for event in one.generate.StreamGenerate(REQUEST)]
    run_id = before[0].start.run_id
    engine = ScriptedEngine(script=lambda job: words("another answer"))
    async with service(engine, journal=in_files(tmp_path)) as two:
        attached = [event async for event in two.runs.AttachRun(AttachRunRequest(run_id=run_id))]
        joined = [event async for event in two.generate.StreamGenerate(REQUEST)]
        for events in (attached, joined):
            assert text(events) == "a whole answer"
            assert events[0].start == before[0].start
            assert events[-1].end == before[-1].end
        assert (await two.runs.GetRun(GetRunRequest(run_id=run_id))).request_id == "one"
        assert engine.started == 0
        # Within its bytes, the reader may have stopped anywhere.
        rest = two.runs.AttachRun(AttachRunRequest(run_id=run_id, after=before[2].cursor))
        assert text(before[:3]) + await text_of(rest) == "a whole answer"


@pytest.mark.asyncio
async def test_a_stream_that_was_sent_away_goes_on_after_the_restart_where_it_stopped(tmp_path: Path) -> None:
    engine = ScriptedEngine(script=lambda job: [*words("the first half")[:-1], Pause(None)])
    async with leaving(engine, journal=in_files(tmp_path), drain_seconds=0.0) as server:
        stream = asyncio.create_task(read_to_refusal(server.service.generate.StreamGenerate(REQUEST)))
        runs = server.service.app.runs
        await until(lambda: any(run.writer.wrote_text and run.log.head > 4 for run in runs.list("local")), "it writes")
        server.leave.set()
        events, refusal = await stream
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert events[-1].WhichOneof("event") == "detached"
    begun = text(events)
    assert "the first half".startswith(begun)
    assert begun
    prompts: list[Any] = []

    def script(job: Any) -> list[Any]:
        prompts.append(job)
        return words(" and the other")

    async with service(ScriptedEngine(script=script), journal=in_files(tmp_path)) as two:
        run_id = events[0].start.run_id
        rest = [event async for event in two.runs.AttachRun(AttachRunRequest(run_id=run_id, after=events[-1].cursor))]
        assert begun + text(rest) == "the first half and the other"
        assert rest[-1].HasField("end")
        assert not rest[-1].end.HasField("error")
        assert [one.dispatched.attempt for one in rest if one.HasField("dispatched")] == [2]
        assert len(prompts) == 1
        whole = [event async for event in two.generate.StreamGenerate(REQUEST)]
        assert text(whole) == "the first half and the other"


@pytest.mark.asyncio
async def test_a_run_that_nobody_wants_any_more_is_not_taken_up(tmp_path: Path) -> None:
    engine = ScriptedEngine(script=lambda job: [*words("some")[:-1], Pause(None)])
    async with service(engine, journal=in_files(tmp_path)) as one:
        stream = one.generate.StreamGenerate(REQUEST)
        run_id = (await next_event(stream)).start.run_id
        await one.runs.CancelRun(CancelRunRequest(run_id=run_id))
        stream.cancel()
    engine = ScriptedEngine()
    async with service(engine, journal=in_files(tmp_path)) as two:
        events = [event async for event in two.runs.AttachRun(AttachRunRequest(run_id=run_id))]
        assert [choice.finish_reason for choice in events[-1].end.choices] == [7]
        assert engine.started == 0
