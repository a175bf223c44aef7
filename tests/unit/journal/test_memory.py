"""The journal in memory keeps within its bound, and gives up the oldest text first."""

import pytest

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import ChoiceEnd, End, FinishReason, Start, Timings, Usage
from tokenwire.journal.log import RunLog
from tokenwire.journal.memory import MemoryJournal


def write(log: RunLog, text: str) -> None:
    log.append(Start(run_id="r", request_id="", model="m", labels={}, retention_seconds=1), 0)
    if text:
        log.append_text(Channel(), text, 0, (1,), 1)
    done = ChoiceEnd(choice=0, finish_reason=FinishReason.STOP)
    log.append(End(choices=(done,), usage=Usage(), timings=Timings(), channels=log.channel_ends()), 0)


def finished(journal: MemoryJournal, run_id: str, text: str = "x" * 1000) -> RunLog:
    log = journal.open(run_id, 4000)
    write(log, text)
    journal.settle(run_id)
    return log


def test_a_run_holds_its_share_until_it_ends_and_then_what_it_wrote() -> None:
    journal = MemoryJournal(10_000)
    log = journal.open("a", 4000)
    assert journal.held == 4000
    write(log, "x" * 1000)
    assert journal.held == 4000
    journal.settle("a")
    assert journal.held == log.size
    assert 1000 < log.size < 4000


def test_a_share_that_does_not_fit_is_refused_and_holds_nothing() -> None:
    journal = MemoryJournal(10_000)
    journal.open("a", 8000)
    with pytest.raises(TokenwireError) as caught:
        journal.open("b", 2001)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "JOURNAL_FULL")
    assert (caught.value.retryable, caught.value.retry_after) == (True, 1.0)
    with pytest.raises(TokenwireError) as caught:
        journal.open("b", 10_001)
    assert (caught.value.retryable, caught.value.retry_after) == (False, None)
    assert journal.held == 8000
    journal.open("c", 2000)


def test_a_run_that_outgrows_its_share_gets_more_or_a_refusal() -> None:
    journal = MemoryJournal(10_000)
    journal.open("a", 4000)
    journal.extend("a", 8000)
    assert journal.held == 8000
    with pytest.raises(TokenwireError, match="no room"):
        journal.extend("a", 16_000)
    assert journal.held == 8000


def test_finished_runs_lose_their_text_the_oldest_end_first_and_keep_their_record() -> None:
    journal = MemoryJournal(10_000)
    first = journal.open("first", 2000)
    logs = [finished(journal, name) for name in ("second", "third")]
    write(first, "x" * 1000)
    journal.settle("first")
    before = journal.held
    journal.open("new", 10_000 - before + 500)
    assert [log.dropped for log in (*logs, first)] == [True, False, False]
    assert [type(marked.marker) for marked in logs[0].markers] == [Start, End]
    assert logs[0].end is not None
    assert logs[0].channels == []
    assert journal.held <= 10_000


def test_a_running_run_never_loses_its_text() -> None:
    journal = MemoryJournal(10_000)
    running = journal.open("running", 5000)
    running.append_text(Channel(), "x" * 4000, 0)
    with pytest.raises(TokenwireError, match="no room"):
        journal.open("new", 6000)
    assert not running.dropped


def test_no_text_is_given_up_for_a_share_that_does_not_fit_even_then() -> None:
    journal = MemoryJournal(10_000)
    old = finished(journal, "old")
    with pytest.raises(TokenwireError, match="no room"):
        journal.open("huge", 10_000)
    assert not old.dropped
    journal.open("large", 10_000 - 1024)
    assert old.dropped


def test_a_run_without_text_has_nothing_to_give_up() -> None:
    journal = MemoryJournal(10_000)
    empty, other = finished(journal, "empty", text=""), finished(journal, "other")
    journal.open("new", 10_001 - journal.held)
    assert (empty.dropped, other.dropped) == (False, True)


def test_forgetting_every_run_gives_everything_back() -> None:
    journal = MemoryJournal(10_000)
    finished(journal, "dropped")
    journal.open("running", 1000)
    journal.extend("running", 3000)
    finished(journal, "whole")
    journal.open("pressing", 10_000 - journal.held + 100)
    for name in ("dropped", "running", "whole", "pressing"):
        journal.forget(name)
    journal.forget("never was")
    assert journal.held == 0
    journal.open("again", 10_000)
