"""One call, read a little ahead; and a stream over calls that a test makes up."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import Delta, Event, Start
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import Run, RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest
from tokenwire_client import AsyncStream, Policy
from tokenwire_client.aio.line import READ_AHEAD, Line
from tokenwire_client.core.following import Following, Request


class Call:
    """A call that brings numbers, or whatever it is given, and then waits."""

    def __init__(self, events: Sequence[Event], *, pauses: float = 0.0, ends: bool = False) -> None:
        self.taken = 0
        self.dropped = asyncio.Event()
        self._events = events
        self._pauses = pauses
        self._ends = ends

    def cancel(self) -> bool:
        self.dropped.set()
        return True

    async def __aiter__(self) -> AsyncIterator[Event]:
        for event in self._events:
            if self._pauses:
                await asyncio.sleep(self._pauses)
            if self.dropped.is_set():
                raise asyncio.CancelledError
            self.taken += 1
            yield event
        if not self._ends:
            await self.dropped.wait()
            raise asyncio.CancelledError


def numbers(count: int) -> list[Event]:
    return [Event(elapsed_ms=number) for number in range(count)]


@pytest.mark.asyncio
async def test_it_reads_no_further_ahead_than_a_bound_and_a_slow_reader_is_no_silence() -> None:
    call = Call(numbers(1000), ends=True)
    line = Line(call, 35.0)
    await asyncio.sleep(3600)
    assert call.taken == READ_AHEAD
    assert not call.dropped.is_set()
    got = []
    while (event := await line.next()) is not None:
        got.append(event.elapsed_ms)
    assert got == list(range(1000))
    assert line.failure is None
    await line.close()


@pytest.mark.asyncio
async def test_silence_is_counted_from_the_last_event() -> None:
    call = Call(numbers(10), pauses=30.0)
    line = Line(call, 35.0)
    began = asyncio.get_running_loop().time()
    assert [(await line.next()) is not None for _ in range(10)] == [True] * 10
    assert await line.next() is None
    assert asyncio.get_running_loop().time() - began == pytest.approx(335.0)
    assert line.failure is not None
    assert line.failure.message == "nothing came for 35 s"
    await line.close()


@pytest.mark.asyncio
async def test_whoever_gives_up_waiting_loses_nothing() -> None:
    call = Call(numbers(3), pauses=10.0)
    line = Line(call, None)
    for _ in range(4):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(line.next(), 2.0)
    assert not call.dropped.is_set()
    assert [event.elapsed_ms for event in [await line.next() for _ in range(3)] if event is not None] == [0, 1, 2]
    await line.close()
    assert call.dropped.is_set()


@pytest.mark.asyncio
async def test_a_channel_that_closes_is_no_broken_line() -> None:
    call = Call([])
    line = Line(call, None)
    await asyncio.sleep(0)
    call.cancel()
    assert await line.next() is None
    assert line.failure is not None
    assert (line.failure.message, line.failure.broken) == ("the client was closed", False)


def stream(calls: list[Call], requests: list[Request], told: list[CancelRunRequest], seconds: float) -> AsyncStream:
    loop = asyncio.get_running_loop()
    policy = Policy()
    request = GenerateRequest(prompt="hi", run=RunOptions(request_id="r"))
    following = Following(request, policy=policy, clock=loop.time, rng=random.Random(0))

    def call(request: Request, time_left: float | None) -> Call:
        requests.append(request)
        return calls[len(requests) - 1]

    async def cancel(request: CancelRunRequest, limit: float) -> Run:
        assert not calls[-1].dropped.is_set(), "the call is dropped after the server was told"
        await asyncio.sleep(seconds)
        told.append(request)
        return Run()

    return AsyncStream(following, call=call, cancel=cancel, policy=policy)


EVENTS = [
    Event(start=Start(run_id="run_1"), cursor=Cursor(seq=1)),
    Event(delta=Delta(text="half"), cursor=Cursor(seq=2)),
]


@pytest.mark.asyncio
async def test_a_task_that_is_cancelled_twice_still_tells_the_server() -> None:
    calls = [Call(EVENTS)]
    told: list[CancelRunRequest] = []

    async def read() -> None:
        async with stream(calls, [], told, 2.0) as opened:
            async for _ in opened:
                pass

    task = asyncio.create_task(read())
    for _ in range(3):
        await asyncio.sleep(0.5)
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert told == [CancelRunRequest(run_id="run_1")]
    assert calls[0].dropped.is_set()


@pytest.mark.asyncio
async def test_a_silent_call_is_dropped_and_the_next_one_goes_on() -> None:
    calls = [Call(EVENTS), Call([])]
    requests: list[Request] = []
    told: list[CancelRunRequest] = []
    async with stream(calls, requests, told, 0.0) as opened:
        assert [(await anext(opened)).WhichOneof("event") for _ in range(2)] == ["start", "delta"]
        waiting = asyncio.create_task(anext(opened))
        await asyncio.sleep(40.0)
        assert calls[0].dropped.is_set()
        assert requests[1] == AttachRunRequest(run_id="run_1", after=Cursor(seq=2))
        waiting.cancel()
        await asyncio.wait([waiting])
        await opened.cancel()
    # Told once is enough.
    assert len(told) == 1


@pytest.mark.asyncio
async def test_a_stream_is_read_once_and_inside_its_block() -> None:
    calls = [Call(EVENTS)]
    opened = stream(calls, [], [], 0.0)
    with pytest.raises(RuntimeError, match="inside"):
        await anext(opened)
    async with opened:
        with pytest.raises(RuntimeError, match="once"):
            await opened.__aenter__()
