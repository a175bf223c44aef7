"""BatchGenerate without a wire, where a test decides in what order gRPC tells things."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tokenwire.dispatch.batch import Answer, Answered, Batch
from tokenwire.dispatch.batches import Batches, BatchLimits, BatchOptions
from tokenwire.domain.context import Clock, RequestContext
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.journal.batch import BatchEntry, ItemDone
from tokenwire.rpc.batch import PROGRESS_SECONDS, BatchServicer
from tokenwire.rpc.batch_events import to_batch_event, to_progress
from tokenwire.rpc.batch_items import ItemCall, Items, key_of
from tokenwire.rpc.watch import StreamLimits
from tokenwire.transport.call import ClientGoneError
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchGenerateRequest, BatchItem, BatchOpen
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RunResult


class Stream:
    """Requests as a test puts them; None is the end."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[BatchGenerateRequest | None] = asyncio.Queue()

    def put(self, *messages: BatchGenerateRequest | None) -> None:
        for message in messages:
            self._queue.put_nowait(message)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> BatchGenerateRequest:
        message = await self._queue.get()
        if message is None:
            raise StopAsyncIteration
        return message


class Reading(ItemCall):
    """A call that keeps what is written, or whose client has left."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(RequestContext(rpc_id="rpc", tenant="local", received_at=loop.time()))
        self.gone = False
        self.reads = True
        self.written: list[tuple[float, BatchEvent]] = []

    async def write(self, message: object) -> None:
        if self.gone:
            raise ClientGoneError
        if not self.reads:
            await asyncio.get_running_loop().create_future()
        assert isinstance(message, BatchEvent)
        self.messages += 1
        self.written.append((asyncio.get_running_loop().time(), message))

    @property
    def kinds(self) -> list[str | None]:
        return [event.WhichOneof("event") for _, event in self.written]


class Echo(Items):
    """Answers after as many seconds as the prompt says."""

    def __init__(self) -> None:
        pass

    def answer(self, item: BatchItem, context: RequestContext) -> Answer:
        async def work(accepted: Callable[[str], None]) -> Answered:
            accepted("run")
            await asyncio.sleep(float(item.generate.prompt))
            return Answered(run_id="run")

        return work

    async def told(self, entry: BatchEntry, tenant: str) -> BatchEvent:
        return to_batch_event(entry, result=RunResult() if isinstance(entry.event, ItemDone) else None)


OPEN = BatchGenerateRequest(open=BatchOpen(batch_id="one"))


def item(name: str, seconds: float) -> BatchGenerateRequest:
    return BatchGenerateRequest(item=BatchItem(item_id=name, generate=GenerateRequest(prompt=str(seconds))))


def house() -> Batches:
    loop = asyncio.get_running_loop()
    limits = BatchLimits(in_flight=64, items=100, orphan_grace=0.0, orphan_grace_max=60.0, retention=300.0)
    return Batches(limits, Clock(monotonic=loop.time, wall=loop.time), new_id=lambda: "made")


def the_batch(batches: Batches) -> Batch:
    return batches.open("local", BatchOptions(batch_id="one"))


@pytest.mark.asyncio
async def test_an_end_of_requests_to_which_nothing_can_be_written_is_no_half_close() -> None:
    batches, stream, call = house(), Stream(), Reading()
    stream.put(OPEN, item("a", 0.0))
    serving = asyncio.create_task(BatchServicer(batches, Echo()).BatchGenerate(stream, call))
    # The time comes when there is nothing else to do.
    await asyncio.sleep(0.1)
    assert "item_done" in call.kinds
    call.gone = True
    stream.put(None)
    with pytest.raises(ClientGoneError):
        await serving
    assert not the_batch(batches).log.ended
    await batches.close()


@pytest.mark.asyncio
async def test_progress_comes_twice_a_second_while_something_changes_and_not_otherwise() -> None:
    batches, stream, call = house(), Stream(), Reading()
    stream.put(OPEN, *(item(str(number), number / 10) for number in range(1, 31)))
    limits = StreamLimits(heartbeat=100.0)
    serving = asyncio.create_task(BatchServicer(batches, Echo(), limits).BatchGenerate(stream, call))
    await asyncio.sleep(30)
    told = [at for at, event in call.written if event.HasField("progress")]
    # The last item ends when 8 at a time have taken their turns; after that nothing is told.
    last = max(at for at, event in call.written if event.HasField("item_done"))
    assert all(later - earlier >= PROGRESS_SECONDS for earlier, later in pairwise(told))
    assert last <= told[-1] <= last + PROGRESS_SECONDS
    assert len(told) == pytest.approx(last / PROGRESS_SECONDS, abs=2)
    stream.put(None)
    await serving
    assert call.kinds[-2:] == ["progress", "end"]
    await batches.close()


@pytest.mark.asyncio
async def test_in_silence_progress_says_that_the_batch_lives() -> None:
    batches, stream, call = house(), Stream(), Reading()
    stream.put(OPEN, item("long", 35.0))
    serving = asyncio.create_task(BatchServicer(batches, Echo()).BatchGenerate(stream, call))
    await asyncio.sleep(34)
    told = [(round(at), event.elapsed_ms) for at, event in call.written if event.HasField("progress")]
    assert told[-3:] == [(10, 10_500), (20, 20_500), (30, 30_500)]
    stream.put(None)
    await serving
    await batches.close()


@pytest.mark.asyncio
async def test_a_client_of_a_batch_that_reads_no_more_is_cut_and_its_batch_waits_for_it() -> None:
    batches, stream, call = house(), Stream(), Reading()
    stream.put(OPEN, item("a", 1.0), item("b", 2.0), item("c", 90.0))
    serving = asyncio.create_task(BatchServicer(batches, Echo()).BatchGenerate(stream, call))
    await asyncio.sleep(1.5)
    call.reads = False
    with pytest.raises(TokenwireError) as caught:
        await serving
    assert (caught.value.code, caught.value.reason, caught.value.retryable) == (Code.ABORTED, "SLOW_CONSUMER", True)
    last = max(event.seq for _, event in call.written)
    assert caught.value.metadata == {"batch_id": "one", "after": str(last)}
    # Grace it has none of its own.
    batch = the_batch(batches)
    await asyncio.sleep(29)
    with batches.reading(batch):
        pass
    await asyncio.sleep(0.5)
    assert batch.running == 1, "it still waits for the one that was cut"
    await asyncio.sleep(1)
    assert batch.running == 0
    await batches.close()


@pytest.mark.asyncio
async def test_what_is_left_is_estimated_once_some_items_are_done() -> None:
    batches, stream, call = house(), Stream(), Reading()
    stream.put(OPEN, *(item(str(number), number) for number in range(1, 5)))
    serving = asyncio.create_task(BatchServicer(batches, Echo()).BatchGenerate(stream, call))
    etas = []
    await asyncio.sleep(0.5)
    for _ in range(4):
        batch = the_batch(batches)
        batch.total = 8
        etas.append(to_progress(batch, closed=False).progress.eta_ms)
        await asyncio.sleep(1)
    stream.put(None)
    await serving
    # After 3.5 seconds three of eight are done.
    assert etas == [0, 0, 0, 3500 * 5 // 3]
    await batches.close()


def test_the_key_of_an_item_tells_requests_apart_and_nothing_else() -> None:
    prompt: dict[str, Any] = {"generate": GenerateRequest(prompt="hi")}
    same = key_of(BatchItem(item_id="a", **prompt))
    assert key_of(BatchItem.FromString(BatchItem(item_id="a", **prompt).SerializeToString())) == same
    others = [
        BatchItem(item_id="b", **prompt),
        BatchItem(item_id="a", generate=GenerateRequest(prompt="ho")),
        BatchItem(item_id="a", chat=ChatRequest()),
        BatchItem(item_id="a", generate=GenerateRequest()),
    ]
    assert len({same, *(key_of(one) for one in others)}) == 5
