"""The journal in memory reserves shares, commits at once, and keeps nothing."""

import pytest

from harness.records import record
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.events import ChoiceEnd, End, FinishReason, Start, Timings, Usage
from tokenwire.journal.log import RunLog
from tokenwire.journal.memory import MemoryJournal


def write(log: RunLog) -> None:
    log.append(Start(run_id="r", request_id="", model="m", labels={}, retention_seconds=1), 0)
    log.append_text(Channel(), "x" * 1000, 0, (1,), 1)
    done = ChoiceEnd(choice=0, finish_reason=FinishReason.STOP)
    log.append(End(choices=(done,), usage=Usage(), timings=Timings(), channels=log.channel_ends()), 0)


@pytest.mark.asyncio
async def test_readers_see_what_was_appended_at_once_and_nobody_can_take_a_run_over() -> None:
    journal = MemoryJournal(10_000)
    log = await journal.open(record("a"))
    write(log)
    assert log.committed == log.head == 3
    assert log.epoch is None
    assert (journal.durable, journal.shared) == (False, False)


@pytest.mark.asyncio
async def test_a_run_holds_its_share_until_it_ends_and_nothing_once_it_is_forgotten() -> None:
    journal = MemoryJournal(10_000)
    log = await journal.open(record("a", share=4000))
    assert journal.held == 4000
    journal.extend("a", 5000)
    assert journal.held == 5000
    write(log)
    journal.settle("a", 1.0)
    assert journal.held == log.size
    journal.forget("a")
    journal.forget("never was")
    assert journal.held == 0


@pytest.mark.asyncio
async def test_a_run_that_has_no_room_is_refused_after_older_text_was_given_up() -> None:
    journal = MemoryJournal(10_000)
    old = await journal.open(record("old", share=4000))
    write(old)
    journal.settle("old", 1.0)
    await journal.open(record("new", share=8900))
    assert old.dropped
    with pytest.raises(TokenwireError, match="no room"):
        await journal.open(record("huge", share=9000))


@pytest.mark.asyncio
async def test_no_other_process_knows_anything() -> None:
    journal = MemoryJournal(10_000)
    await journal.open(record("a"))
    assert await journal.find("local", run_id="a") is None
    assert await journal.known("local") == []
    assert not await journal.attended("a")
