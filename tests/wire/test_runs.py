"""RunService over a real channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from harness.reading_client import reading_client
from harness.service import Service, service
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import Cut, Fail, ScriptedEngine, Step, WaitFor, words
from tokenwire.v1.cursor_pb2 import ChannelOffset, Cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.finish_pb2 import FINISH_REASON_CANCELLED, FINISH_REASON_STOP
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import (
    RUN_STATE_FAILED,
    RUN_STATE_FINISHED,
    RUN_STATE_QUEUED,
    RUN_STATE_RUNNING,
    Run,
    RunOptions,
)
from tokenwire.v1.run_service_pb2 import (
    AttachRunRequest,
    CancelRunRequest,
    GetRunRequest,
    ListRunsRequest,
    WaitRunRequest,
)

HALF, REST = "Once upon a time — 水が", "流れる, 👩‍👩‍👧 ça va."


class Halves:
    """An engine that writes half of its text, and the rest when it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.engine = ScriptedEngine(script=self._script)

    def _script(self, job: Job) -> list[Step]:
        if job.prompt.text == "fail":
            return [Fail(EngineError(Code.UNAVAILABLE, "ENGINE_FAILED", "no"))]
        if job.prompt.text == "cut":
            return [*words(HALF)[:-1], Cut()]
        return [*words(HALF)[:-1], WaitFor(self.go), *words(REST)]


@asynccontextmanager
async def halves() -> AsyncIterator[tuple[Halves, Service]]:
    one = Halves()
    async with service(one.engine, failover="none") as running:
        yield one, running


def request(request_id: str = "", prompt: str = "hi", *, detached: bool = True, **labels: str) -> GenerateRequest:
    return GenerateRequest(prompt=prompt, run=RunOptions(request_id=request_id, detached=detached, labels=labels))


async def half(call: "grpc.aio.UnaryStreamCall[Any, Event]") -> list[Event]:
    """Reads until the first half has come."""
    events: list[Event] = []
    async for event in call:
        events.append(event)
        if text_of(events) == HALF:
            return events
    raise AssertionError(f"it ended with {text_of(events)!r}")


async def begun(running: Service, request_id: str, prompt: str = "hi", **labels: str) -> Run:
    """Starts a run, reads its first half and leaves."""
    call = running.generate.StreamGenerate(request(request_id, prompt, detached=True, **labels))
    await half(call)
    call.cancel()
    return await running.runs.GetRun(GetRunRequest(request_id=request_id))


def text_of(events: list[Event]) -> str:
    return "".join(event.delta.text for event in events)


def reason(error: grpc.aio.AioRpcError) -> str:
    """Returns the reason in an error's details."""
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


@pytest.mark.asyncio
async def test_a_late_reader_gets_what_is_written_and_then_what_comes() -> None:
    async with halves() as (engine, running):
        run = await begun(running, "a")
        call = running.runs.AttachRun(AttachRunRequest(run_id=run.run_id))
        events = await half(call)
        assert events[0].start.run_id == run.run_id
        engine.go.set()
        events += [event async for event in call]
    assert text_of(events) == HALF + REST
    assert [event.HasField("end") for event in events].index(True) == len(events) - 1


@pytest.mark.asyncio
async def test_after_a_client_was_killed_another_one_gets_the_exact_rest_by_its_cursor() -> None:
    async with halves() as (engine, running):
        first = grpc.aio.insecure_channel(running.address)
        events = await half(Service(running.app, running.port, first).generate.StreamGenerate(request("a")))
        await first.close()
        engine.go.set()
        small = Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=2))
        for number, event in enumerate(events):
            attach = AttachRunRequest(request_id="a", after=event.cursor, delivery=small)
            rest = [other async for other in running.runs.AttachRun(attach)]
            assert text_of(events[: number + 1]) + text_of(rest) == HALF + REST


@pytest.mark.asyncio
async def test_a_client_process_that_is_killed_leaves_its_run_to_its_grace() -> None:
    one = Halves()
    async with service(one.engine, orphan_grace_seconds=60.0) as running:
        async with reading_client(running.port):
            (run,) = (await running.runs.ListRuns(ListRunsRequest())).runs
        # It was killed in the middle of its call.
        one.go.set()
        result = await running.runs.WaitRun(WaitRunRequest(run_id=run.run_id))
    assert result.choices[0].text == HALF + REST


@pytest.mark.asyncio
async def test_a_submit_with_a_cursor_reads_on_and_never_starts_a_run() -> None:
    async with halves() as (engine, running):
        unknown = request("a")
        unknown.after.SetInParent()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await half(running.generate.StreamGenerate(unknown))
        assert (caught.value.code(), engine.engine.started) == (grpc.StatusCode.NOT_FOUND, 0)
        run = await begun(running, "a")
        engine.go.set()
        again = request("a")
        again.after.seq = run.head.seq
        assert text_of([event async for event in running.generate.StreamGenerate(again)]) == REST


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Cursor(seq=1000), "CURSOR_AHEAD"),
        (Cursor(seq=1, ahead=[ChannelOffset(byte_offset=1000)]), "CURSOR_AHEAD"),
        (Cursor(seq=1, ahead=[ChannelOffset(choice=3)]), "CURSOR_AHEAD"),
        (Cursor(seq=1, ahead=[ChannelOffset(byte_offset=len("Once upon a time —".encode()) - 1)]), "CURSOR_INVALID"),
    ],
    ids=["past the run", "past its text", "in no channel", "inside a character"],
)
@pytest.mark.asyncio
async def test_a_cursor_that_is_none_is_refused(after: Cursor, expected: str) -> None:
    async with halves() as (_, running):
        await begun(running, "a")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await half(running.runs.AttachRun(AttachRunRequest(request_id="a", after=after)))
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, expected)


@pytest.mark.asyncio
async def test_whoever_attaches_at_the_very_end_gets_the_end_again() -> None:
    async with halves() as (engine, running):
        engine.go.set()
        events = [event async for event in running.generate.StreamGenerate(request("a"))]
        attach = AttachRunRequest(request_id="a", after=events[-1].cursor)
        assert [event async for event in running.runs.AttachRun(attach)] == events[-1:]


@pytest.mark.asyncio
async def test_a_wait_answers_at_the_end_with_the_whole_answer_or_the_run_s_error() -> None:
    async with halves() as (engine, running):
        run = await begun(running, "a")
        wait = asyncio.ensure_future(running.runs.WaitRun(WaitRunRequest(run_id=run.run_id)))
        engine.go.set()
        result = await wait
        assert (result.run_id, result.choices[0].text) == (run.run_id, HALF + REST)
        assert result == await running.runs.WaitRun(WaitRunRequest(request_id="a"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generate.Generate(request("b", "cut"))
        with pytest.raises(grpc.aio.AioRpcError) as again:
            await running.runs.WaitRun(WaitRunRequest(request_id="b"))
    for error in (caught.value, again.value):
        assert (error.code(), reason(error)) == (grpc.StatusCode.DATA_LOSS, "ENGINE_LOST")


@pytest.mark.asyncio
async def test_a_run_tells_where_it_stands() -> None:
    async with halves() as (engine, running):
        run = await begun(running, "a", kind="slow")
        assert (run.state, run.model, run.engine, run.request_id) == (RUN_STATE_RUNNING, "scripted", "scripted", "a")
        assert (run.detached, run.text_dropped, dict(run.labels)) == (True, False, {"kind": "slow"})
        assert (run.head.seq, run.usage.output_tokens) == (2 + len(HALF.split(" ")), len(HALF.split(" ")))
        assert not run.HasField("end_time")
        call = running.runs.AttachRun(AttachRunRequest(request_id="a"))
        await half(call)
        assert (await running.runs.GetRun(GetRunRequest(request_id="a"))).readers == 1
        engine.go.set()
        async for _ in call:
            pass
        run = await running.runs.GetRun(GetRunRequest(run_id=run.run_id))
        assert (run.state, run.choices[0].finish_reason) == (RUN_STATE_FINISHED, FINISH_REASON_STOP)
        assert run.expire_time.ToSeconds() - run.end_time.ToSeconds() == pytest.approx(300, abs=1)
        assert run.create_time.ToSeconds() <= run.end_time.ToSeconds()
        with pytest.raises(grpc.aio.AioRpcError):
            await running.generate.Generate(request("b", "fail"))
        run = await running.runs.GetRun(GetRunRequest(request_id="b"))
        assert (run.state, run.error.reason) == (RUN_STATE_FAILED, "ENGINE_FAILED")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.runs.GetRun(GetRunRequest(run_id="unknown"))
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


@pytest.mark.asyncio
async def test_runs_are_listed_newest_first_in_pages_without_gap_or_duplicate() -> None:
    async with halves() as (engine, running):
        engine.go.set()
        names = [f"run{number}" for number in range(7)]
        for name in names:
            await running.generate.Generate(request(name))
        found: list[str] = []
        token, pages = "", 0
        while token or not pages:
            page = await running.runs.ListRuns(ListRunsRequest(page_size=3, page_token=token))
            found += [run.request_id for run in page.runs]
            token, pages = page.next_page_token, pages + 1
            # A run that is new meanwhile is on no later page.
            await running.generate.Generate(request(f"new{pages}"))
        assert (found, pages) == (names[::-1], 3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.runs.ListRuns(ListRunsRequest(page_token="none of ours"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.asyncio
async def test_lists_are_cut_by_state_and_by_labels() -> None:
    async with halves() as (engine, running):
        await begun(running, "running", team="a", kind="x")
        with pytest.raises(grpc.aio.AioRpcError):
            await running.generate.Generate(request("failed", "fail", team="a"))
        await running.runs.CancelRun(CancelRunRequest(request_id="cancelled"))

        async def names(**wanted: object) -> list[str]:
            page = await running.runs.ListRuns(ListRunsRequest(**wanted))  # type: ignore[arg-type]
            return [run.request_id for run in page.runs]

        assert await names() == ["cancelled", "failed", "running"]
        assert await names(state=RUN_STATE_RUNNING) == ["running"]
        assert await names(state=RUN_STATE_FAILED) == ["failed"]
        assert await names(state=RUN_STATE_FINISHED) == ["cancelled"]
        assert await names(state=RUN_STATE_QUEUED) == []
        assert await names(labels={"team": "a"}) == ["failed", "running"]
        assert await names(labels={"team": "a", "kind": "x"}) == ["running"]
        assert await names(labels={"team": "b"}) == []
        assert await names(labels={"team": "a"}, state=RUN_STATE_FAILED, page_size=1) == ["failed"]
        engine.go.set()


@pytest.mark.asyncio
async def test_a_cancel_ends_the_run_and_every_reader_reads_ok_and_the_text_so_far() -> None:
    async with halves() as (engine, running):
        call = running.generate.StreamGenerate(request("a", detached=False))
        events = await half(call)
        run = await running.runs.CancelRun(CancelRunRequest(run_id=events[0].start.run_id))
        assert (run.state, run.choices[0].finish_reason) == (RUN_STATE_FINISHED, FINISH_REASON_CANCELLED)
        assert engine.engine.running == 0
        events += [event async for event in call]
        assert await call.code() is grpc.StatusCode.OK
        assert events[-1].end.choices[0].finish_reason == FINISH_REASON_CANCELLED
        late = [event async for event in running.runs.AttachRun(AttachRunRequest(request_id="a"))]
        assert text_of(late) == text_of(events) == HALF
        assert await running.runs.CancelRun(CancelRunRequest(request_id="a")) == await running.runs.GetRun(
            GetRunRequest(request_id="a")
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.runs.CancelRun(CancelRunRequest(run_id="unknown"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.asyncio
async def test_a_request_that_was_cancelled_in_advance_never_reaches_an_engine() -> None:
    async with halves() as (engine, running):
        run = await running.runs.CancelRun(CancelRunRequest(request_id="a"))
        call = running.generate.StreamGenerate(request("a"))
        events = [event async for event in call]
        assert [event.WhichOneof("event") for event in events] == ["start", "end"]
        assert events[0].start.run_id == run.run_id
        result = await running.generate.Generate(request("a", "another prompt"))
        assert result.choices[0].finish_reason == FINISH_REASON_CANCELLED
        assert engine.engine.started == 0
