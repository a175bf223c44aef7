"""One run's log: dense numbers, whole events, readers that wake."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.delivery.view import View
from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.events import ChannelEnd, ChoiceEnd, Delta, End, FinishReason, Start, Timings, TokenLogprob, Usage
from tokenwire.journal.log import UNKNOWN_ID, RunLog

START = Start(run_id="r", request_id="", model="m", labels={}, retention_seconds=1)
END = End(
    choices=(ChoiceEnd(choice=0, finish_reason=FinishReason.STOP),), usage=Usage(), timings=Timings(), channels=()
)
REASONING = Channel(0, ChannelKind.REASONING)


def test_numbers_are_dense_over_markers_and_text() -> None:
    log = RunLog()
    log.append(START, 0)
    for channel in (REASONING, Channel(), REASONING):
        log.append_text(channel, "水", 1)
    log.append(END, 2)
    reasoning = log.channel(REASONING)
    assert reasoning is not None
    assert [marked.seq for marked in log.markers] == [1, 5]
    assert list(reasoning.seqs) == [2, 4]
    assert list(reasoning.ends) == [3, 6]
    assert log.head_cursor == Cursor(5)


def test_nothing_follows_the_end() -> None:
    log = RunLog()
    log.append(END, 0)
    with pytest.raises(AssertionError):
        log.append(START, 0)
    with pytest.raises(AssertionError):
        log.append_text(Channel(), "a", 0)
    assert log.head == 1


def test_text_that_cannot_be_written_leaves_no_trace() -> None:
    log = RunLog()
    log.append(START, 0)
    with pytest.raises(UnicodeEncodeError):
        log.append_text(Channel(), "half a pair: \ud83d", 0)
    with pytest.raises(OverflowError):
        log.append_text(Channel(), "a", 0, (-1,), 1)
    assert log.head == 1
    assert log.channels == []
    assert log.channel_ends() == ()


@given(st.lists(st.tuples(st.text(st.sampled_from("aé水"), min_size=1), st.lists(st.integers(0, 9), max_size=3))))
def test_texts_in_one_step_are_the_same_as_one_by_one(pieces: list[tuple[str, list[int]]]) -> None:
    single, joined = RunLog(), RunLog()
    for log in (single, joined):
        log.append(START, 0)
        log.append_text(Channel(), "before", 1, (5, 6), 2)
        log.append_text(REASONING, "hm", 1)
    for text, ids in pieces:
        single.append_text(Channel(), text, 2, ids, len(ids))
    joined.append_texts(Channel(), [text for text, _ in pieces], 2, [ids for _, ids in pieces])
    assert joined.head == single.head
    assert joined.size == single.size
    one, other = joined.channel(Channel()), single.channel(Channel())
    for name in ("text", "seqs", "ends", "tokens", "at_ms", "token_ids", "logprobs"):
        assert getattr(one, name) == getattr(other, name)


def test_texts_of_which_one_cannot_be_written_leave_no_trace() -> None:
    log = RunLog()
    with pytest.raises(UnicodeEncodeError):
        log.append_texts(Channel(), ["a", "\ud83d"], 0, [[1], [2]])
    with pytest.raises(OverflowError):
        log.append_texts(Channel(), ["a", "b"], 0, [[1], [-1]])
    assert log.head == 0
    assert log.channels == []
    log.append(END, 0)
    with pytest.raises(AssertionError):
        log.append_texts(Channel(), ["a"], 0, [[1]])


def test_the_end_names_every_channel_in_order_with_length_and_digest() -> None:
    log = RunLog()
    log.append_text(Channel(1), "é", 0, (1, 2), 2)
    log.append_text(REASONING, "b", 0)
    log.append_text(Channel(), "c", 0, (3,), 1)
    assert log.channel_ends() == tuple(
        ChannelEnd(
            channel=channel, bytes=len(text.encode()), tokens=tokens, sha256=hashlib.sha256(text.encode()).hexdigest()
        )
        for channel, text, tokens in ((Channel(), "c", 1), (REASONING, "b", 0), (Channel(1), "é", 2))
    )


def test_ids_that_the_engine_does_not_tell_are_marked_and_hide_no_others() -> None:
    log = RunLog()
    log.append_text(Channel(), "ab", 0, (1, 2), 2)
    log.append_text(REASONING, "ab", 0, (1, 2), 2)
    log.append_text(Channel(), "c", 0, (), 1)
    log.append_text(Channel(), "d", 0, (4,), 1)
    log.wake()
    (text, reasoning) = log.channels
    assert list(text.token_ids) == [1, 2, UNKNOWN_ID, 4]
    assert list(reasoning.token_ids) == [1, 2]
    assert list(text.tokens) == [2, 3, 4]
    view = View(log, Cursor(3), token_ids=True)
    assert [one.event.token_ids for one in view.take() if isinstance(one.event, Delta)] == [(4,)]
    view = View(log, token_ids=True)
    assert [one.event.token_ids for one in view.take() if isinstance(one.event, Delta)] == [(), (1, 2)]


def test_the_size_grows_with_all_that_is_held() -> None:
    log = RunLog()
    sizes = [log.size]
    log.append(START, 0)
    sizes.append(log.size)
    log.append_text(Channel(), "x" * 100, 0)
    sizes.append(log.size)
    log.append_text(Channel(), "x", 0, (1,) * 50, 50)
    sizes.append(log.size)
    log.append_text(Channel(), "x", 0, (), 0, (TokenLogprob(token_id=1, token="x", logprob=0.0),))
    sizes.append(log.size)
    grown = [later - earlier for earlier, later in pairwise(sizes)]
    assert all(more >= least for more, least in zip(grown, (100, 100, 200, 100), strict=True))
    log.drop()
    assert log.size == sizes[1]


@pytest.mark.asyncio
async def test_every_waiting_reader_wakes_when_the_writer_says_so() -> None:
    log = RunLog()
    readers = [log.changed() for _ in range(3)]
    readers[1].cancel()
    log.append_text(Channel(), "a", 0)
    assert not any(reader.done() for reader in (readers[0], readers[2]))
    log.wake()
    assert all(reader.done() for reader in readers)


@pytest.mark.asyncio
async def test_readers_that_leave_a_silent_run_leave_nothing_behind() -> None:
    log = RunLog()
    stays = log.changed()
    for _ in range(1000):
        log.changed().cancel()
    waiters = log._waiters
    assert waiters is not None
    assert len(waiters.futures) < 40
    log.wake()
    assert stays.done()
    assert not waiters.futures


def test_without_a_sink_what_was_appended_is_seen_at_the_next_wake() -> None:
    log = RunLog()
    log.append_text(Channel(), "a", 0)
    assert (log.head, log.committed) == (1, 0)
    log.wake()
    assert (log.head, log.committed) == (1, 1)


def test_with_a_sink_nothing_is_seen_before_it_is_published() -> None:
    told: list[RunLog] = []
    log = RunLog(told.append, epoch=1)
    log.append(START, 0)
    log.append_text(Channel(), "a", 0)
    log.append(END, 1)
    assert told == [log, log]
    assert (log.closed, log.end, log.head_cursor) == (True, None, Cursor(0, (), 1))
    log.publish(2)
    assert (log.end, log.head_cursor) == (None, Cursor(2, (), 1))
    log.publish(3)
    assert (log.end, log.head_cursor) == (END, Cursor(3, (), 1))
