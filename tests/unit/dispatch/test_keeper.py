"""Runs that were accepted elsewhere: restored, taken over, followed, handed over, lost."""

import asyncio
from dataclasses import replace

import pytest

from tokenwire.dispatch.run import StopCause
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.domain.events import ChoiceEnd, DetachReason, End, FinishReason, Start, Timings, Usage
from tokenwire.domain.generation import Prompt
from tokenwire.engines.scripted import Pause
from tokenwire.journal.journal import Kept
from tokenwire.journal.log import RunLog
from tokenwire.journal.memory import MemoryJournal
from tokenwire.journal.record import RunRecord
from unit.dispatch.house import House, asked, engine, say, stop, text_of

WALL = 1_700_000_000.0


class SharedJournal(MemoryJournal):
    """A journal in memory that plays one of several processes: others' runs are put into `others` by a test."""

    durable = True
    shared = True

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.others: list[Kept] = []
        self.attending: dict[str, int] = {}
        self.attended_elsewhere: set[str] = set()
        self.cancels: list[str] = []
        self.handed_over: list[str] = []

    async def find(
        self, tenant: str, *, run_id: str = "", request_id: str = "", accepting: bool = False
    ) -> Kept | None:
        named = (run_id, request_id)
        for kept in self.others:
            record = kept.record
            if record.tenant == tenant and named in ((record.run_id, ""), ("", record.submission.run.request_id)):
                return kept
        return None

    async def known(self, tenant: str) -> list[str]:
        return [kept.record.run_id for kept in self.others if kept.record.tenant == tenant]

    def attend(self, run_id: str, readers: int) -> None:
        self.attending[run_id] = readers

    async def attended(self, run_id: str) -> bool:
        return run_id in self.attended_elsewhere

    async def cancel(self, run_id: str) -> None:
        self.cancels.append(run_id)

    async def hand_over(self, run_ids: list[str]) -> None:
        self.handed_over += run_ids

    def give(self, kept: Kept) -> Kept:
        """Takes a run that this process is to write from now on."""
        self._logs[kept.record.run_id] = kept.log
        self._room.reserve(kept.record.run_id, kept.record.share)
        return kept


def sharing(house: House) -> SharedJournal:
    """Gives a house a journal that other processes share."""
    journal = SharedJournal(house.journal_bytes)
    house.journal = journal
    house.runs._journal = house.runs.presence._journal = house.runs._dispatcher._journal = journal
    return journal


def kept(run_id: str = "other", text: str = "", *, ended: bool = False, **fields: object) -> Kept:
    """Returns a run of another process, as far as it was written."""
    record = RunRecord(
        run_id=run_id,
        tenant="local",
        model="scripted",
        submission=asked("theirs"),
        prompt=Prompt(text="hi", token_ids=(104, 105), tokens=2),
        share=4096,
        grace=0.0,
        created_at=WALL,
        max_duration=600.0,
        retention=300.0,
    )
    log = RunLog(epoch=1)
    log.append(Start(run_id=run_id, request_id="theirs", model="scripted", labels={}, retention_seconds=300), 0)
    if text:
        log.append_text(Channel(), text, 5, (1,), 1)
        log.wake()
    if ended:
        done = ChoiceEnd(choice=0, finish_reason=FinishReason.STOP)
        log.append(End(choices=(done,), usage=Usage(), timings=Timings(), channels=log.channel_ends()), 9)
    return Kept(record=replace(record, **fields), log=log, ended_at=WALL if ended else None)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_restored_run_is_found_joined_and_forgotten_in_time() -> None:
    house = House()
    sharing(house)
    house.runs.restore(kept(text="whole", ended=True))
    run = house.runs.get("local", run_id="other")
    assert run is house.runs.get("local", request_id="theirs")
    assert (text_of(run), run.expires_at) == ("whole", WALL + 300)
    assert await house.submit(asked("theirs")) is run
    with pytest.raises(NotFoundError):
        house.runs.get("another", run_id="other")
    await asyncio.sleep(299)
    assert house.runs.get("local", run_id="other") is run
    await asyncio.sleep(2)
    with pytest.raises(NotFoundError):
        house.runs.get("local", run_id="other")


@pytest.mark.asyncio
async def test_a_run_taken_over_before_its_first_token_is_written_here() -> None:
    house = House(engine=engine(say("ours"), stop()))
    house.runs.take_over(sharing(house).give(kept()))
    run = house.runs.get("local", request_id="theirs")
    await run.finished()
    assert text_of(run) == "ours"
    assert run.error is None
    await house.runs.close()


@pytest.mark.asyncio
async def test_a_run_taken_over_waits_for_its_reader_and_no_longer() -> None:
    house = House(engine=engine(Pause(None)))
    house.runs.take_over(sharing(house).give(kept()))
    run = house.runs.get("local", run_id="other")
    await asyncio.sleep(29)
    assert run.stopped is None
    with house.runs.reading(run):
        await asyncio.sleep(60)
        assert run.stopped is None
    await run.finished()
    assert run.stopped is StopCause.ORPHANED
    await house.runs.close()


@pytest.mark.asyncio
async def test_a_run_taken_over_keeps_the_time_limit_it_was_accepted_with() -> None:
    house = House(engine=engine(Pause(None)))
    house.runs.take_over(sharing(house).give(kept(created_at=WALL - 590)))
    run = house.runs.get("local", run_id="other")
    assert run.elapsed_ms() == 590_000
    await asyncio.sleep(11)
    assert run.stopped is StopCause.TIME_LIMIT
    await run.finished()
    await house.runs.close()


@pytest.mark.asyncio
async def test_a_run_of_another_process_is_followed_while_it_is_read() -> None:
    house = House()
    journal = sharing(house)
    journal.others.append(kept(text="so far"))
    run = await house.runs.find("local", run_id="other")
    assert await house.runs.find("local", request_id="theirs") is run
    assert await house.submit(asked("theirs")) is run
    with house.runs.reading(run):
        assert journal.attending == {"other": 1}
        await asyncio.sleep(100)
        assert house.runs.get("local", run_id="other") is run
    assert journal.attending == {"other": 0}
    await asyncio.sleep(10)
    with pytest.raises(NotFoundError):
        house.runs.get("local", run_id="other")
    assert run.stopped is None
    assert house.engine.started == 0


@pytest.mark.asyncio
async def test_another_request_of_an_id_that_another_process_knows_is_refused() -> None:
    house = House()
    sharing(house).others.append(kept())
    with pytest.raises(TokenwireError) as caught:
        await house.submit(asked("theirs", prompt="something else"))
    assert caught.value.code is Code.ALREADY_EXISTS
    await house.runs.close()


@pytest.mark.asyncio
async def test_a_cancel_goes_to_the_process_that_writes() -> None:
    house = House()
    journal = sharing(house)
    there = kept()
    journal.others.append(there)
    cancelling = asyncio.create_task(house.runs.cancel(house.context, run_id="other"))
    await asyncio.sleep(0.1)
    assert journal.cancels == ["other"]
    assert not cancelling.done()
    done = ChoiceEnd(choice=0, finish_reason=FinishReason.CANCELLED)
    there.log.append(End(choices=(done,), usage=Usage(), timings=Timings(), channels=()), 9)
    run = await cancelling
    assert run.end is not None
    await house.runs.close()


@pytest.mark.asyncio
async def test_readers_elsewhere_keep_a_run_alive_until_the_last_one_leaves() -> None:
    house = House(engine=engine(Pause(None)))
    journal = sharing(house)
    run = await house.submit(asked())
    journal.attended_elsewhere.add(run.id)
    with house.runs.reading(run):
        pass
    await asyncio.sleep(100)
    assert run.stopped is None
    journal.attended_elsewhere.clear()
    house.runs.unattended(run.id)
    await run.finished()
    assert run.stopped is StopCause.ORPHANED
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_gateway_that_dies_with_its_readers_does_not_keep_a_run_alive() -> None:
    house = House(engine=engine(Pause(None)))
    journal = sharing(house)
    run = await house.submit(asked())
    journal.attended_elsewhere.add(run.id)
    with house.runs.reading(run):
        pass
    await asyncio.sleep(1)
    journal.attended_elsewhere.clear()
    await asyncio.sleep(20)
    assert run.stopped is StopCause.ORPHANED
    await run.finished()
    await house.at_rest()


@pytest.mark.asyncio
async def test_at_a_drain_a_run_is_handed_over_without_an_end() -> None:
    house = House(engine=engine(say("half"), Pause(None)))
    journal = sharing(house)
    run = await house.submit(asked())
    with house.runs.reading(run):
        await asyncio.sleep(1)
        await house.runs.drain(0)
        assert (journal.handed_over, run.handed_over) == ([run.id], DetachReason.DRAINING)
        assert not run.log.closed
        assert house.engine.running == 0
    await house.runs.close()


@pytest.mark.asyncio
async def test_a_lost_run_is_stopped_and_left_to_the_process_that_writes_it() -> None:
    house = House(engine=engine(say("half"), Pause(None)))
    sharing(house)
    run = await house.submit(asked("r"))
    with house.runs.reading(run):
        await asyncio.sleep(1)
        house.runs.lose(run.id)
        assert run.handed_over is DetachReason.MOVED
        await run.finished()
        assert not run.log.closed
        with pytest.raises(NotFoundError):
            house.runs.get("local", run_id=run.id)
    assert house.engine.running == 0
    await house.runs.close()
    assert house.journal.held == 0


@pytest.mark.asyncio
async def test_runs_of_all_processes_are_listed_once() -> None:
    house = House()
    journal = sharing(house)
    journal.others.append(kept())
    run = await house.submit(asked())
    await run.finished()
    assert list(await house.runs.known("local")) == [run.id, "other"]
    await house.runs.find("local", run_id="other")
    assert sorted(await house.runs.known("local")) == sorted([run.id, "other"])
    await house.runs.close()


@pytest.mark.asyncio
async def test_a_run_that_is_opened_while_a_drain_begins_is_refused_and_may_begin_elsewhere() -> None:
    house = House(engine=engine(Pause(None)))
    journal = sharing(house)
    opening = journal.open

    async def slowly(record: RunRecord, replaces: str = "") -> RunLog:
        await house.runs.drain(0)
        return await opening(record, replaces)

    journal.open = slowly  # type: ignore[method-assign]
    with pytest.raises(TokenwireError) as caught:
        await house.submit(asked("mine"))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "DRAINING")
    run = house.runs.get("local", request_id="mine")
    assert run.error is not None
    assert house.engine.running == 0
    await house.runs.close()
