"""Batches through the Python client, both fronts."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from harness.batching import Gates, generate_item, the_batch
from harness.fault_proxy import fault_proxy
from harness.service import service
from harness.waiting import until
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import ScriptedEngine, Step, words
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchItemDone, BatchStarted
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.finish_pb2 import RunError
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import Message
from tokenwire_client import AsyncClient, BrokenError, Client, Code, Failure, Outcome, Policy, RefusedError
from tokenwire_client.core.batching import Batching

QUICK = Policy(first_wait=0.001, longest_wait=0.02)
NAMES = [str(number) for number in range(1, 11)]


def echo(job: Job) -> list[Step]:
    return words(job.submission.prompt or "chat")


async def answers(address: str, front: str, items: list[Any], **options: Any) -> list[Outcome]:
    """Answers a batch through one of the fronts."""
    if front == "async":
        async with AsyncClient(address, policy=QUICK) as client, client.batch(items, **options) as batch:
            return [outcome async for outcome in batch]

    def work() -> list[Outcome]:
        with Client(address, policy=QUICK) as client, client.batch(items, **options) as batch:
            return list(batch)

    return await asyncio.to_thread(work)


def texts(outcomes: list[Outcome]) -> dict[str, str]:
    found = {}
    for one in outcomes:
        assert one.item_id not in found, "an item ended twice"
        found[one.item_id] = one.error.reason if one.error else one.result.text if one.result else ""
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("front", ["async", "sync"])
async def test_items_of_every_kind_are_answered_and_bad_ones_fail_alone(front: str) -> None:
    chat = ChatRequest(messages=[Message(content="hi")])
    items = ["one", GenerateRequest(prompt=""), chat, generate_item("named", "two")]
    events: list[BatchEvent] = []
    async with service(ScriptedEngine(script=echo)) as running:
        outcomes = await answers(running.address, front, items, on_event=events.append, in_flight=2, total=4)
        assert the_batch(running).max_in_flight == 2
    assert texts(outcomes) == {"1": "one", "2": "INVALID_REQUEST", "3": "chat", "named": "two"}
    assert events[0].started.max_in_flight == 2
    assert (events[-1].end.succeeded, events[-1].end.failed) == (3, 1)
    [bad] = [one for one in outcomes if one.error]
    assert (bad.run_id, bad.result) == ("", None)


@pytest.mark.asyncio
@pytest.mark.parametrize("front", ["async", "sync"])
async def test_a_line_that_breaks_is_taken_up_again_and_nothing_runs_twice(front: str) -> None:
    gates = Gates(*NAMES[:4])
    failures: list[Failure] = []
    async with service(gates.engine) as running, fault_proxy(running.port) as proxy:
        address = f"127.0.0.1:{proxy.port}"
        task = asyncio.create_task(
            answers(
                address, front, NAMES, in_flight=3,
                on_reconnect=lambda attempt, failure, wait: failures.append(failure),
            )
        )  # fmt: skip
        for name in NAMES[4:8]:
            await until(lambda name=name: name in gates.prompts, "the next one runs")  # type: ignore[misc]
            await proxy.cut()
            gates.open(name)
        gates.open(*NAMES)
        outcomes = await task
    assert texts(outcomes) == {name: name for name in NAMES}
    assert sorted(gates.prompts) == sorted(NAMES)
    assert failures


@pytest.mark.asyncio
@pytest.mark.parametrize("front", ["async", "sync"])
async def test_a_batch_larger_than_the_server_takes_goes_into_several(front: str) -> None:
    gates = Gates(*NAMES)
    async with service(gates.engine, batch_items_max=4) as running:
        outcomes = await answers(running.address, front, NAMES, total=10)
    assert texts(outcomes) == {name: name for name in NAMES}
    assert sorted(gates.prompts) == sorted(NAMES)


@pytest.mark.asyncio
@pytest.mark.parametrize("front", ["async", "sync"])
async def test_leaving_early_stops_what_is_in_flight(front: str) -> None:
    gates = Gates("1")

    async def leave() -> None:
        async with AsyncClient(running.address) as client, client.batch(NAMES, in_flight=4) as batch:
            async for _ in batch:
                break

    def leave_sync() -> None:
        with Client(running.address) as client, client.batch(NAMES, in_flight=4) as batch:
            next(batch)

    async with service(gates.engine) as running:
        await (leave() if front == "async" else asyncio.to_thread(leave_sync))
        await until(lambda: gates.engine.running == 0, "the engine is idle long before the grace is over")


@pytest.mark.asyncio
async def test_items_may_come_slowly_and_an_outcome_is_there_before_the_next_one() -> None:
    outcomes: asyncio.Queue[str] = asyncio.Queue()

    async def items() -> AsyncIterator[str]:
        for name in NAMES:
            yield name
            assert await outcomes.get() == name

    async with (
        service(ScriptedEngine(script=echo)) as running,
        AsyncClient(running.address) as client,
        client.batch(items()) as batch,
    ):
        async for outcome in batch:
            assert outcome.result is not None
            outcomes.put_nowait(outcome.result.text)


@pytest.mark.asyncio
async def test_a_thread_that_waits_for_an_item_does_not_lose_it_when_the_line_breaks() -> None:
    gates = Gates("1", "2", "3")
    loop = asyncio.get_running_loop()
    asked, given = asyncio.Event(), asyncio.Event()

    def items() -> Iterator[str]:
        yield "1"
        loop.call_soon_threadsafe(asked.set)
        asyncio.run_coroutine_threadsafe(given.wait(), loop).result(20)
        yield "2"
        yield "3"

    async with service(gates.engine) as running, fault_proxy(running.port) as proxy:

        def work() -> list[Outcome]:
            with Client(f"127.0.0.1:{proxy.port}", policy=QUICK) as client, client.batch(items()) as batch:
                return list(batch)

        task = asyncio.create_task(asyncio.to_thread(work))
        await asked.wait()
        await until(lambda: the_batch(running).succeeded == 1, "the first is done")
        await proxy.cut()
        await until(lambda: len(the_batch(running).readers) == 1, "the client is back")
        given.set()
        assert texts(await task) == {"1": "1", "2": "2", "3": "3"}


@pytest.mark.asyncio
@pytest.mark.parametrize("front", ["async", "sync"])
async def test_what_the_items_raise_is_raised(front: str) -> None:
    async def asynchronous() -> AsyncIterator[str]:
        yield "one"
        raise KeyError("items")

    def synchronous() -> Iterator[str]:
        yield "one"
        raise KeyError("items")

    async with service(ScriptedEngine(script=echo)) as running:
        given: Callable[[], Any] = asynchronous if front == "async" else synchronous
        with pytest.raises(KeyError, match="items"):
            await answers(running.address, front, given())
        with pytest.raises(ValueError, match="two items have the id"):
            await answers(running.address, front, [generate_item("a"), generate_item("a")])


@pytest.mark.asyncio
@pytest.mark.parametrize("front", ["async", "sync"])
async def test_a_server_that_refuses_or_is_not_there_is_told(front: str) -> None:
    async with service() as running:
        with pytest.raises(RefusedError) as refused:
            await answers(running.address, front, ["hi"], in_flight=5000)
    assert refused.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(BrokenError):
        await answers("127.0.0.1:1", front, ["hi"])


def batching() -> Batching:
    return Batching(policy=Policy(), clock=time.monotonic, rng=random.Random(0))


def done(item_id: str, seq: int, reason: str = "") -> BatchEvent:
    error = RunError(reason=reason) if reason else None
    return BatchEvent(item_done=BatchItemDone(item_id=item_id, error=error), seq=seq)


def test_items_that_were_cancelled_for_want_of_a_reader_are_sent_again() -> None:
    batch = batching()
    first = batch.open()
    batch.add(BatchEvent(started=BatchStarted(batch_id="b"), seq=1))
    for name in ("a", "b"):
        batch.take(generate_item(name))
        assert batch.again() is not None
    assert batch.add(done("a", 2, "ORPHANED")) == []
    again = batch.failed(Failure(code=Code.UNAVAILABLE, message="gone"))
    assert again is not None
    opening = batch.open()
    assert (opening.open.batch_id, opening.open.after) == (first.open.batch_id, 2)
    sent = [batch.again(), batch.again(), batch.again()]
    assert [one.item.item_id if one else None for one in sent] == ["a", "b", None]
    assert batch.add(done("a", 3)) == [done("a", 3)]
    assert batch.add(done("a", 3)) == []


def test_a_batch_that_the_server_has_forgotten_is_begun_anew_with_what_is_left() -> None:
    batch = batching()
    first = batch.open()
    batch.take(generate_item("a"))
    batch.take(generate_item("b"))
    batch.add(done("a", 5))
    gone = Failure(code=Code.NOT_FOUND, message="no", reason="BATCH_NOT_FOUND", told=True)
    assert batch.failed(gone) is not None
    opening = batch.open()
    assert opening.open.batch_id != first.open.batch_id
    assert opening.open.after == 0
    left = batch.again()
    assert left is not None
    assert left.item.item_id == "b"
    assert batch.again() is None
