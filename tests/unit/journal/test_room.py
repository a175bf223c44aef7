"""All logs together keep within a bound, and the oldest text is given up first."""

import pytest

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import ChoiceEnd, End, FinishReason, Start, Timings, Usage
from tokenwire.journal.log import RunLog
from tokenwire.journal.room import Room


def ended(text: str = "x" * 1000) -> RunLog:
    log = RunLog()
    log.append(Start(run_id="r", request_id="", model="m", labels={}, retention_seconds=1), 0)
    if text:
        log.append_text(Channel(), text, 0, (1,), 1)
    done = ChoiceEnd(choice=0, finish_reason=FinishReason.STOP)
    log.append(End(choices=(done,), usage=Usage(), timings=Timings(), channels=log.channel_ends()), 0)
    return log


def finished(room: Room, run_id: str, text: str = "x" * 1000) -> RunLog:
    room.reserve(run_id, 4000)
    log = ended(text)
    room.settle(run_id, log)
    return log


def test_a_run_holds_its_share_until_it_ends_and_then_what_it_wrote() -> None:
    room = Room(10_000)
    room.reserve("a", 4000)
    assert room.held == 4000
    log = ended()
    room.settle("a", log)
    assert room.held == log.size
    assert 1000 < log.size < 4000


def test_a_share_that_does_not_fit_is_refused_and_holds_nothing() -> None:
    room = Room(10_000)
    room.reserve("a", 8000)
    with pytest.raises(TokenwireError) as caught:
        room.reserve("b", 2001)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "JOURNAL_FULL")
    assert (caught.value.retryable, caught.value.retry_after) == (True, 1.0)
    with pytest.raises(TokenwireError) as caught:
        room.reserve("b", 10_001)
    assert (caught.value.retryable, caught.value.retry_after) == (False, None)
    assert room.held == 8000
    room.reserve("c", 2000)


def test_a_run_that_outgrows_its_share_gets_more_or_a_refusal() -> None:
    room = Room(10_000)
    room.reserve("a", 4000)
    room.reserve("a", 8000)
    assert room.held == 8000
    with pytest.raises(TokenwireError, match="no room"):
        room.reserve("a", 16_000)
    assert room.held == 8000


def test_finished_runs_lose_their_text_the_oldest_end_first_and_keep_their_record() -> None:
    dropped: list[str] = []
    room = Room(10_000, dropped.append)
    room.reserve("first", 2000)
    logs = [finished(room, name) for name in ("second", "third")]
    first = ended()
    room.settle("first", first)
    before = room.held
    room.reserve("new", 10_000 - before + 500)
    assert [log.dropped for log in (*logs, first)] == [True, False, False]
    assert dropped == ["second"]
    assert [type(marked.marker) for marked in logs[0].markers] == [Start, End]
    assert logs[0].end is not None
    assert logs[0].channels == []
    assert room.held <= 10_000


def test_a_running_run_never_loses_its_text() -> None:
    room = Room(10_000)
    room.reserve("running", 5000)
    with pytest.raises(TokenwireError, match="no room"):
        room.reserve("new", 6000)
    assert room.held == 5000


def test_no_text_is_given_up_for_a_share_that_does_not_fit_even_then() -> None:
    room = Room(10_000)
    old = finished(room, "old")
    with pytest.raises(TokenwireError, match="no room"):
        room.reserve("huge", 10_000)
    assert not old.dropped
    room.reserve("large", 10_000 - 1024)
    assert old.dropped


def test_a_run_without_text_has_nothing_to_give_up() -> None:
    room = Room(10_000)
    empty, other = finished(room, "empty", text=""), finished(room, "other")
    room.reserve("new", 10_001 - room.held)
    assert (empty.dropped, other.dropped) == (False, True)


def test_a_room_that_holds_more_than_its_bound_gives_up_what_it_can_the_oldest_first() -> None:
    large = Room(10_000)
    logs = [finished(large, name) for name in ("first", "second", "third")]
    small = Room(large.held - 1000)
    for name, log in zip(("first", "second", "third"), logs, strict=True):
        small.settle(name, log)
    small.shrink()
    assert [log.dropped for log in logs] == [True, False, False]
    tiny = Room(10)
    for name, log in zip(("first", "second", "third"), logs, strict=True):
        tiny.settle(name, log)
    tiny.shrink()
    assert all(log.dropped for log in logs)
    assert tiny.held == sum(log.size for log in logs)


def test_a_run_that_is_settled_twice_counts_once() -> None:
    room = Room(10_000)
    log = finished(room, "a")
    room.settle("a", log)
    assert room.held == log.size


def test_freeing_every_run_gives_everything_back() -> None:
    room = Room(10_000)
    finished(room, "dropped")
    room.reserve("running", 1000)
    room.reserve("running", 3000)
    finished(room, "whole")
    room.reserve("pressing", 10_000 - room.held + 100)
    for name in ("dropped", "running", "whole", "pressing", "never was"):
        room.free(name)
    assert room.held == 0
    room.reserve("again", 10_000)
