"""A client that does not read: its stream is cut and told so as far as it can be, and its run goes on."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from harness.raw_http2 import RawHttp2, grpc_message, raw_http2
from harness.reading import text_of
from harness.refusals import read_to_refusal
from harness.service import Service, service
from harness.waiting import until
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Channel
from tokenwire.domain.generation import Job, Piece
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step, WaitFor, words
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.run_pb2 import Limits, RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest
from tokenwire.v1.run_service_pb2_grpc import RunServiceStub

LARGE = "".join(f"{number:07d} " for number in range(60_000))
GENERATE = "/tokenwire.v1.GenerateService/StreamGenerate"
# The engine may be silent for longer than a client.
REQUEST = GenerateRequest(
    prompt="large", run=RunOptions(request_id="one"), limits=Limits(stall_timeout=Duration(seconds=60))
)
BODY = grpc_message(REQUEST.SerializeToString())
# A client whose transport takes little more than what is read.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))


class Slow:
    """An engine that writes half a megabyte, and ends when the test says so."""

    def __init__(self) -> None:
        self.ends = asyncio.Event()
        self.engine = ScriptedEngine(script=self._script)

    def _script(self, job: Job) -> list[Step]:
        if job.submission.prompt == "little":
            return words("a few words")
        return [Emit((Piece(channel=Channel(), text=LARGE, token_count=0),)), WaitFor(self.ends), *words("")]


@asynccontextmanager
async def narrow(running: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running.address, options=NARROW) as channel:
        yield channel


def the_run(running: Service) -> Run:
    return next(run for run in running.app.runs.list("local") if run.request_id == "one")


async def cut(running: Service) -> Run:
    """Waits until the run's only reader is cut."""
    runs = running.app.runs
    await until(lambda: any(run.request_id and run.readers == 1 for run in runs.list("local")), "it is read")
    run = the_run(running)
    await until(lambda: not run.readers, "its reader is cut")
    return run


async def rest(running: Service, after: Any) -> str:
    return await text_of(running.runs.AttachRun(AttachRunRequest(request_id="one", after=after)))


def calls() -> int:
    """How many calls grpc.aio has on its hands."""
    return sum(task.get_name() == "rpc_task" for task in asyncio.all_tasks())


@pytest.mark.asyncio
async def test_a_client_that_reads_again_gets_what_was_on_its_way_then_aborted_and_resumes_without_a_gap() -> None:
    slow = Slow()
    async with service(slow.engine, stall_seconds=2.0) as running, narrow(running) as channel:
        stream: Any = GenerateServiceStub(channel).StreamGenerate(REQUEST)
        first = await anext(aiter(stream))
        run = await cut(running)
        later, told = await read_to_refusal(stream)
        got: list[Event] = [first, *later]
        assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "SLOW_CONSUMER")
        assert told.metadata["retryable"] == "true"
        assert (told.metadata["run_id"], told.metadata["resume_within_ms"]) == (run.id, "30000")
        # The one that was being written when it was cut arrives as well.
        sure, last = json.loads(told.metadata["cursor"])["seq"], got[-1].cursor
        assert sure <= last.seq
        assert [event.cursor.seq for event in got].count(sure) >= 1
        # Its grace is 0, and it lives.
        assert (run.end, slow.engine.running) == (None, 1)
        slow.ends.set()
        text = "".join(event.delta.text for event in got)
        assert 0 < len(text) < len(LARGE)
        assert text + await rest(running, last) == LARGE
        assert LARGE.endswith(await rest(running, Cursor(seq=sure)))
    assert slow.engine.stopped == 0


@pytest.mark.asyncio
async def test_a_status_does_not_need_a_first_message_to_have_gone_through() -> None:
    slow = Slow()
    async with service(slow.engine, stall_seconds=1.0) as running, raw_http2(running.port, window=0) as raw:
        stream = await raw.request(GENERATE, BODY)
        await cut(running)
        assert not raw.data[stream]
        raw._h2.increment_flow_control_window(2**20, stream)
        await raw.flush()
        headers = await raw.answered(stream)
        assert headers["grpc-status"] == str(grpc.StatusCode.ABORTED.value[0])
        assert len(raw.data[stream]) > 5, "the first message arrives before it"


@pytest.mark.asyncio
async def test_a_stream_that_no_status_reaches_is_reset_and_others_of_its_connection_are_not() -> None:
    slow = Slow()
    # Resets are by what grpc.aio calls its tasks; tests/wire/test_call_endings.py has the same for every transport.
    settings: dict[str, Any] = {"transport": "grpc_aio", "stall_seconds": 0.5}
    async with service(slow.engine, **settings) as running, raw_http2(running.port) as raw:
        raw._h2.increment_flow_control_window(2**20)
        # grpc's server holds the first call that it ever gets, and the last one until the next comes.
        await text_of(running.generate.StreamGenerate(GenerateRequest(prompt="little")))
        stream = await raw.request(GENERATE, BODY)
        run = await cut(running)
        assert calls() == 1
        assert stream not in raw.ended, "its status waits"
        # With the client still there, nothing is left of the call.
        await until(lambda: calls() == 0, "grpc has let go of the call")
        little = await raw.request(GENERATE, grpc_message(GenerateRequest(prompt="little").SerializeToString()))
        assert (await raw.answered(little))["grpc-status"] == "0"
        assert (await raw.answered(stream)).get("grpc-status") != "0"
        assert (raw.closed, run.end) == (False, None)
        slow.ends.set()
        assert await rest(running, None) == LARGE


@pytest.mark.asyncio
async def test_one_that_does_not_read_is_cut_alone_and_others_read_on() -> None:
    slow = Slow()
    async with (
        service(slow.engine, stall_seconds=0.5) as running,
        narrow(running) as channel,
        grpc.aio.insecure_channel(running.address) as other,
    ):
        stuck: Any = GenerateServiceStub(channel).StreamGenerate(REQUEST)
        await stuck.read()
        fine = [asyncio.create_task(text_of(RunServiceStub(other).AttachRun(_attach()))) for _ in range(3)]
        await until(lambda: the_run(running).readers == 4, "four read")
        await until(lambda: the_run(running).readers == 3, "one is cut")
        slow.ends.set()
        assert [await one for one in fine] == [LARGE] * 3
        stuck.cancel()


@pytest.mark.asyncio
async def test_a_server_that_stops_waits_for_no_status_that_nobody_reads() -> None:
    slow = Slow()
    async with raw_connected(slow, stall_seconds=0.3, flush_seconds=0.1) as (running, raw):
        stream = await raw.request(GENERATE, BODY)
        await cut(running)
        assert stream not in raw.ended, "its status waits"


@asynccontextmanager
async def raw_connected(slow: Slow, **settings: float) -> AsyncIterator[tuple[Service, RawHttp2]]:
    async with service(slow.engine, **settings) as running, raw_http2(running.port) as raw:
        yield running, raw


def _attach() -> AttachRunRequest:
    return AttachRunRequest(request_id="one")


@pytest.mark.asyncio
async def test_grpc_itself_lets_a_status_wait_for_ever_behind_a_message_that_is_not_read() -> None:
    waits = asyncio.Event()

    async def handler(request: bytes, context: Any) -> None:
        # Else a second try to send it, with the status, fails.
        await context.send_initial_metadata(())
        stuck = asyncio.ensure_future(context.write(b"x" * 200_000))
        await asyncio.sleep(0)
        stuck.cancel()
        await asyncio.wait([stuck])
        waits.set()
        await context.abort(grpc.StatusCode.ABORTED, "cut")

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.unary_stream_rpc_method_handler(handler)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with raw_http2(port) as raw:
            stream = await raw.request("/test.Bare/Method")
            await waits.wait()
            await raw.exhausted(stream)
            # The window of the stream is used up, that of the connection too; then both open.
            assert "grpc-status" not in raw.headers[stream]
            raw._h2.increment_flow_control_window(2**20)
            raw._h2.increment_flow_control_window(2**20, stream)
            await raw.flush()
            assert (await raw.answered(stream))["grpc-status"] == str(grpc.StatusCode.ABORTED.value[0])
            assert len(raw.data[stream]) == 200_005, "the message of the cancelled write arrives whole"
    finally:
        await server.stop(0)
