"""The items of one batch, and all batches, without any wire."""

import asyncio
from collections.abc import Callable

import pytest

from tokenwire.dispatch.batch import Answer, Answered, Batch
from tokenwire.dispatch.batches import Batches, BatchLimits, BatchOptions
from tokenwire.domain.context import Clock
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import RunError, Usage
from tokenwire.journal.batch import BatchEnd, ItemDone

WELL = Answered(run_id="run", usage=Usage(prompt_tokens=2, output_tokens=3))


class Work:
    """Answers items when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.ready = asyncio.Event()

    def answer(self, answered: Answered = WELL) -> Answer:
        async def work(accepted: Callable[[str], None]) -> Answered:
            self.begun += 1
            accepted("run")
            try:
                await self.ready.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return answered

        return work


def batches(items: int = 100, grace: float = 0.0) -> Batches:
    loop = asyncio.get_running_loop()
    limits = BatchLimits(in_flight=64, items=items, orphan_grace=grace, orphan_grace_max=60.0, retention=300.0)
    return Batches(limits, Clock(monotonic=loop.time, wall=loop.time), new_id=lambda: "made")


def begin(house: Batches, batch: Batch, *names: str, answer: Answer) -> None:
    for name in names:
        house.start(batch, (name, b""), answer)


async def settled(batch: Batch) -> None:
    while batch.running:
        await batch.log.changed()


@pytest.mark.asyncio
async def test_a_place_is_taken_until_the_items_end_was_sent() -> None:
    house, work = batches(), Work()
    batch = house.open("local", BatchOptions(max_in_flight=2))
    with house.reading(batch):
        begin(house, batch, "a", "b", answer=work.answer())
        assert batch.full
        work.ready.set()
        await settled(batch)
        # Started, twice an item's start, twice its end.
        assert batch.log.head == 5
        assert batch.full
        batch.sent(4)
        assert not batch.full
        begin(house, batch, "c", answer=work.answer())
        assert batch.full
        await settled(batch)
        batch.sent(batch.log.head)
        assert not batch.full
    await house.close()


@pytest.mark.asyncio
async def test_the_end_comes_when_all_readers_have_closed_and_all_items_have_ended() -> None:
    house, work = batches(), Work()
    batch = house.open("local", BatchOptions())
    with house.reading(batch) as one:
        begin(house, batch, "a", "b", answer=work.answer())
        with house.reading(batch) as two:
            batch.close(one)
            work.ready.set()
            await settled(batch)
            assert not batch.log.ended
            batch.close(two)
            assert batch.log.ended
    last = batch.log.entry(batch.log.head)
    assert last is not None
    assert last.event == BatchEnd(succeeded=2, failed=0, usage=Usage(prompt_tokens=4, output_tokens=6))
    await house.close()


@pytest.mark.asyncio
async def test_the_end_comes_when_the_last_one_leaves_who_had_not_closed() -> None:
    house = batches()
    batch = house.open("local", BatchOptions())
    with house.reading(batch) as one:
        with house.reading(batch):
            batch.close(one)
            assert not batch.log.ended
        assert batch.log.ended
    await house.close()


@pytest.mark.asyncio
async def test_the_grace_lasts_as_long_as_it_was_asked_for_and_not_longer() -> None:
    house, work = batches(), Work()
    loop = asyncio.get_running_loop()
    batch = house.open("local", BatchOptions(batch_id="one", orphan_grace=20.0))
    with house.reading(batch):
        begin(house, batch, "a", answer=work.answer())
        await asyncio.sleep(0)
    left_at = loop.time()
    await asyncio.sleep(19)
    assert batch.running == 1
    # A reader in between begins it anew.
    with house.reading(batch):
        await asyncio.sleep(19)
    await asyncio.sleep(19)
    assert batch.running == 1
    await settled(batch)
    assert (loop.time() - left_at, work.cancelled, batch.failed) == (58.0, 0, 1)
    await asyncio.sleep(0)
    assert work.cancelled == 1
    # Kept for the retention, then forgotten.
    await asyncio.sleep(299)
    assert house.open("local", BatchOptions(batch_id="one", after=1)) is batch
    await asyncio.sleep(2)
    with pytest.raises(TokenwireError) as caught:
        house.open("local", BatchOptions(batch_id="one", after=1))
    assert caught.value.reason == "BATCH_NOT_FOUND"


@pytest.mark.asyncio
async def test_the_grace_that_is_asked_for_has_a_bound() -> None:
    house = batches()
    assert house.open("local", BatchOptions(orphan_grace=1000.0)).grace == 60.0
    await house.close()


@pytest.mark.asyncio
async def test_an_item_that_was_cancelled_before_its_first_step_runs_when_it_is_sent_again() -> None:
    house, work = batches(), Work()
    batch = house.open("local", BatchOptions(batch_id="one"))
    with house.reading(batch):
        begin(house, batch, "a", answer=work.answer())
    assert (batch.failed, work.begun) == (1, 0)
    work.ready.set()
    with house.reading(batch):
        begin(house, batch, "a", answer=work.answer())
        await settled(batch)
    assert (batch.succeeded, batch.failed, batch.received, work.begun) == (1, 0, 1, 1)
    await house.close()


@pytest.mark.asyncio
async def test_an_item_that_failed_or_went_well_is_not_run_again() -> None:
    house, work = batches(), Work()
    failed = Answered(error=RunError(code=Code.UNAVAILABLE, reason="ENGINE_LOST", message="lost", retryable=True))
    work.ready.set()
    batch = house.open("local", BatchOptions())
    with house.reading(batch):
        for answered in (WELL, failed):
            for _ in range(2):
                begin(house, batch, repr(answered), answer=work.answer(answered))
                await settled(batch)
    assert (work.begun, batch.succeeded, batch.failed) == (2, 1, 1)
    await house.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError("x")])
async def test_a_bug_in_an_item_ends_it_as_internal(error: BaseException) -> None:
    async def broken(accepted: Callable[[str], None]) -> Answered:
        raise error

    house = batches()
    batch = house.open("local", BatchOptions())
    with house.reading(batch):
        begin(house, batch, "a", answer=broken)
        await settled(batch)
    entry = batch.log.entry(2)
    assert entry is not None
    assert isinstance(entry.event, ItemDone)
    assert entry.event.error is not None
    assert entry.event.error.reason == "INTERNAL"
    await house.close()


@pytest.mark.asyncio
async def test_the_oldest_batch_that_nobody_needs_gives_way_and_others_do_not() -> None:
    house, work = batches(items=4), Work()
    work.ready.set()
    old, new = (house.open("local", BatchOptions(batch_id=name)) for name in ("old", "new"))
    for batch in (old, new):
        with house.reading(batch):
            begin(house, batch, "a", "b", answer=work.answer())
            await settled(batch)
    third = house.open("local", BatchOptions(batch_id="third"))
    assert [batch.id for batch in house._batches.values()] == ["new", "third"]
    with house.reading(third):
        begin(house, third, "a", "b", "c", "d", answer=work.answer())
        assert [batch.id for batch in house._batches.values()] == ["third"]
        with pytest.raises(TokenwireError) as caught:
            begin(house, third, "e", answer=work.answer())
        assert caught.value.reason == "TOO_MANY_ITEMS"
        with pytest.raises(TokenwireError):
            house.open("local", BatchOptions(batch_id="fourth"))
        # What is known needs no room.
        begin(house, third, "a", answer=work.answer())
    await house.close()
    assert house._held == 0


@pytest.mark.asyncio
async def test_batches_of_two_tenants_do_not_meet() -> None:
    house = batches()
    one = house.open("one", BatchOptions(batch_id="same"))
    assert house.open("two", BatchOptions(batch_id="same")) is not one
    with pytest.raises(TokenwireError):
        house.open("three", BatchOptions(batch_id="same", after=1))
    await house.close()


@pytest.mark.asyncio
async def test_closing_leaves_no_task() -> None:
    house, work = batches(), Work()
    batch = house.open("local", BatchOptions(orphan_grace=60.0))
    with house.reading(batch):
        begin(house, batch, "a", "b", answer=work.answer())
        await asyncio.sleep(0)
    await house.close()
    assert work.cancelled == 2
    assert len(asyncio.all_tasks()) == 1
