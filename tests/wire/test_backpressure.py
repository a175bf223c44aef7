"""Readers that are slow, or do not read at all: the engine and the other readers never notice."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import pytest

from harness.answering_server import AnsweringServer, answering_server
from harness.raw_http2 import grpc_message, raw_http2
from harness.reading import next_event, text_of
from harness.service import Service, service
from harness.waiting import until
from tokenwire.delivery.view import MAX_TEXT_BYTES
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Job, Piece
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step, words
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, GetRunRequest
from tokenwire.v1.run_service_pb2_grpc import RunServiceStub

if TYPE_CHECKING:
    from tokenwire.v1.run_service_pb2_grpc import RunServiceAsyncStub

STREAMS = 50
MIB = 1024 * 1024
LARGE = "0123456789abcdef" * 64
METHOD = "/tokenwire.v1.GenerateService/StreamGenerate"


def _script(job: Job) -> list[Step]:
    """A megabyte in a thousand reads, or a few words for who asks for little."""
    if job.submission.prompt == "little":
        return words("just a few words")
    piece = Piece(channel=Channel(), text=LARGE, token_count=0)
    return [*(Emit((piece,)) for _ in range(1024)), Emit((ChoiceDone(choice=0, finish_reason=FinishReason.STOP),))]


def _runs(running: Service) -> list[Run]:
    return running.app.runs.list("local")


@pytest.mark.asyncio
async def test_50_clients_that_never_read_stop_no_engine_and_disturb_nobody(caplog: pytest.LogCaptureFixture) -> None:
    engine = ScriptedEngine(script=_script)
    async with service(engine) as running:
        async with raw_http2(running.port) as raw:
            body = grpc_message(GenerateRequest(prompt="large").SerializeToString())
            for _ in range(STREAMS):
                await raw.request(METHOD, body)
            await until(lambda: sum(run.end is not None for run in _runs(running)) == STREAMS, "every run has ended")
            assert (engine.started, engine.running, engine.stopped) == (STREAMS, 0, 0)
            # The journal holds it all; of the answers one connection's window has gone out, and no more.
            assert sum(run.log.size for run in _runs(running)) >= STREAMS * MIB
            assert sum(len(data) for data in raw.data.values()) <= raw.window
            assert [run.readers for run in _runs(running)] == [1] * STREAMS
            # Others are served as if they were alone.
            for _ in range(5):
                stream = running.generate.StreamGenerate(GenerateRequest(prompt="little"))
                assert await text_of(stream) == "just a few words"
        await until(lambda: not any(run.readers for run in _runs(running)), "every reader is gone")
        # What nobody read can still be read.
        stalled = next(run for run in _runs(running) if run.log.size > MIB)
        again = running.runs.AttachRun(AttachRunRequest(run_id=stalled.id))
        assert await text_of(again) == LARGE * 1024
    assert not caplog.records, "a client that leaves is no error of ours"


@pytest.mark.asyncio
async def test_a_reader_that_comes_back_gets_what_it_missed_in_few_messages() -> None:
    engine = ScriptedEngine(script=_script)
    async with service(engine) as running:
        stream = running.generate.StreamGenerate(GenerateRequest(prompt="large"))
        events = [await next_event(stream)]
        (run,) = _runs(running)
        await until(lambda: run.end is not None, "the run has ended")
        while events[-1].WhichOneof("event") != "end":
            events.append(await next_event(stream))
    texts = [event.delta.text for event in events if event.HasField("delta")]
    assert "".join(texts) == LARGE * 1024
    assert len(texts) < 100
    offset = 0
    for event in events:
        if event.HasField("delta"):
            assert event.delta.byte_offset == offset
            offset += len(event.delta.text)


@pytest.mark.asyncio
async def test_a_slow_reader_and_a_fast_one_of_the_same_run_get_the_same_text() -> None:
    engine = ScriptedEngine(script=_script)
    async with service(engine) as running:
        slow = running.generate.StreamGenerate(GenerateRequest(prompt="large"))
        first = await next_event(slow)
        fast = running.runs.AttachRun(AttachRunRequest(run_id=first.start.run_id))
        assert await text_of(fast) == LARGE * 1024
        text = ""
        while True:
            event = await next_event(slow)
            text += event.delta.text
            if event.HasField("end"):
                break
            await asyncio.sleep(0)
        assert text == LARGE * 1024


READERS = 200
CONNECTIONS = 4
# Of a message its text, its bytes and grpc's copy, and as much again for buffers and all that a call is.
READER_BYTES = 6 * MAX_TEXT_BYTES


async def _wave(server: AnsweringServer, runs: "RunServiceAsyncStub") -> tuple[int, int]:
    """Lets readers come that read nothing, until all are cut; returns how many there were at once, and the memory."""
    body = grpc_message(AttachRunRequest(request_id="one").SerializeToString())
    most = memory = 0
    async with AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(raw_http2(server.port)) for _ in range(CONNECTIONS)]
        for raw in raws:
            # Each stream is stuck for itself.
            raw._h2.increment_flow_control_window(2**30)
            for _ in range(READERS // CONNECTIONS):
                await raw.request("/tokenwire.v1.RunService/AttachRun", body, flush=False)
            await raw.flush()
        while sum(len(raw.ended) for raw in raws) < READERS:
            most = max(most, (await runs.GetRun(GetRunRequest(request_id="one"))).readers)
            memory = max(memory, server.memory)
            await asyncio.sleep(0.02)
        assert not any(raw.closed for raw in raws)
        # With all of their connections still open, nothing is left of them.
        assert await server.at_rest() < 10
    return most, memory


@pytest.mark.asyncio
async def test_many_readers_that_never_read_cost_bounded_memory_are_all_cut_and_leave_nothing() -> None:
    # By hand with 1000 readers: at most 141 KB each, and the same in the third wave.
    request = GenerateRequest(prompt="large", run=RunOptions(request_id="one", detached=True))
    async with (
        answering_server(stall_seconds=0.7) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert len(await text_of(GenerateServiceStub(channel).StreamGenerate(request))) == MIB
        await server.at_rest()
        idle, files = server.memory, server.files
        for _ in range(3):
            # What one wave leaves behind would come on top of the next one.
            most, memory = await _wave(server, RunServiceStub(channel))
            assert most == READERS
            assert memory - idle < READERS * READER_BYTES
            await until(lambda: server.files <= files, "their connections are closed")
        assert len(await text_of(RunServiceStub(channel).AttachRun(AttachRunRequest(request_id="one")))) == MIB
