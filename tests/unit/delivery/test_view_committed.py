"""A journal that is written before it is read: nobody sees an event before it is kept, and cursors know the writer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.delivery.view import View
from tokenwire.domain.cursor import START, Channel, ChannelKind, Cursor
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Delta, End, Envelope
from tokenwire.domain.request import Delivery
from tokenwire.journal.log import RunLog
from unit.delivery.story import Plot, Story, deliveries, plots, sizes, whole_pieces

CALL = Channel(0, ChannelKind.TOOL_CALL, 0)


def kept(log: RunLog) -> None:
    """A journal that keeps what it is told to keep when the test says so."""


def slow_story(plot: Plot, epoch: int = 1) -> Story:
    story = Story(plot, RunLog(kept, epoch))
    story.log.publish(1)
    return story


class Watcher:
    """Follows a run of which only a part is committed; fails when it is shown more, or less than is whole."""

    def __init__(self, story: Story, delivery: Delivery, after: Cursor = START) -> None:
        self.story, self.delivery = story, delivery
        self.view = View(story.log, after, delivery)
        self.begun = story.consumed(after)
        self.at = dict(self.begun)
        self.cursors = [after]
        self.markers = sum(seq <= after.seq for seq in story.markers)

    def take(self) -> None:
        """Takes what can go out, one message after another, and looks at each."""
        for envelope in self.view.take():
            self._look(envelope)
        story, limit = self.story, self.story.log.committed
        if not self.view.ended:
            # All that is committed and whole is there.
            upto = story.consumed(Cursor(limit))
            for channel, end in upto.items():
                begun, size = self.begun.get(channel, 0), sizes(self.delivery).get(channel.kind)
                rest = story.texts[channel].encode()[begun:end].decode()
                due = len(rest.encode()) if size is None else max(whole_pieces(rest, size), default=0)
                assert self.at.get(channel, 0) == begun + due
            assert self.markers == sum(seq <= limit for seq in story.markers)

    def _look(self, envelope: Envelope) -> None:
        story, limit, cursor = self.story, self.story.log.committed, envelope.cursor
        assert cursor.seq <= limit
        assert cursor.epoch == story.log.epoch
        if isinstance(envelope.event, Delta):
            channel, data = envelope.event.channel, envelope.event.text.encode()
            assert envelope.event.byte_offset == self.at.get(channel, 0)
            self.at[channel] = self.at.get(channel, 0) + len(data)
            assert story.texts[channel].encode()[: self.at[channel]].endswith(data)
            # Committed, to the last byte.
            assert self.at[channel] <= story.consumed(Cursor(limit))[channel]
        else:
            self.markers += 1
        # The cursor stands for what was shown, and no more.
        told = story.consumed(cursor)
        assert all(told[channel] <= self.at.get(channel, 0) for channel in told)
        assert sum(seq <= cursor.seq for seq in story.markers) <= self.markers
        self.cursors.append(cursor)


@settings(max_examples=200)
@given(
    plot=plots(),
    ways=st.lists(deliveries(), min_size=1, max_size=3),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=25),
)
def test_no_view_in_any_mode_shows_what_is_not_committed_and_every_one_all_that_is(
    plot: Plot, ways: list[Delivery], steps: list[tuple[bool, float]]
) -> None:
    story = slow_story(plot)
    watchers = [Watcher(story, way) for way in ways]
    told = 0
    for writes, share in steps:
        if writes and told < len(plot.batches):
            story.tell(told)
            told += 1
        elif writes and not story.log.closed and told == len(plot.batches):
            story.finish()
        else:
            ahead = story.log.head - story.log.committed
            story.log.publish(story.log.committed + round(share * ahead))
            for watcher in watchers[:5]:
                watcher.take()
            # One more goes on where the first one is, as another one likes it.
            watchers.append(Watcher(story, ways[-1], watchers[0].cursors[-1]))
    for number in range(told, len(plot.batches)):
        story.tell(number)
    if not story.log.closed:
        story.finish()
    assert story.log.end is None or story.log.committed == story.log.head
    story.log.publish(story.log.head)
    for watcher in watchers:
        watcher.take()
        assert watcher.view.ended
        assert watcher.at == {channel: len(text.encode()) for channel, text in story.texts.items()}


@settings(max_examples=100)
@given(plot=plots(), delivery=deliveries(), at=st.integers(0, 10), growth=st.integers(1, 10))
def test_what_is_written_while_messages_go_out_waits_for_the_next_look(
    plot: Plot, delivery: Delivery, at: int, growth: int
) -> None:
    story = Story(plot)
    half = min(at, len(plot.batches))
    for number in range(half):
        story.tell(number)
    watcher = Watcher(story, delivery)
    messages = watcher.view.take()
    committed = story.log.committed
    for number, envelope in enumerate(messages):
        assert envelope.cursor.seq <= committed
        watcher._look(envelope)
        if number % growth == 0 and half < len(plot.batches):
            story.tell(half)
            half += 1
    for number in range(half, len(plot.batches)):
        story.tell(number)
    story.finish()
    watcher.take()
    assert watcher.at == {channel: len(text.encode()) for channel, text in story.texts.items()}
    # Whoever resumes from any of these cursors gets exactly the rest.
    for cursor in watcher.cursors:
        again = Watcher(story, delivery, cursor)
        again.take()
        assert again.at == watcher.at


def test_text_that_is_dropped_between_two_messages_is_out_of_range() -> None:
    log = RunLog()
    log.append_text(Channel(), "x" * 100_000, 0)
    log.wake()
    messages = iter(View(log).take())
    assert isinstance(next(messages).event, Delta)
    log.drop()
    with pytest.raises(TokenwireError) as caught:
        next(messages)
    assert (caught.value.code, caught.value.reason) == (Code.OUT_OF_RANGE, "TEXT_DROPPED")


@pytest.mark.parametrize("after", [Cursor(3), Cursor(1, ((Channel(), 4),)), Cursor(1, ((CALL, 1),))])
def test_a_cursor_beyond_what_is_committed_is_past_the_run_although_it_is_written(after: Cursor) -> None:
    log = RunLog(kept, epoch=1)
    for channel, text in ((Channel(), "abc"), (Channel(), "def"), (CALL, "ghi")):
        log.append_text(channel, text, 0)
    log.publish(1)
    with pytest.raises(InvalidRequestError) as caught:
        View(log, after)
    assert caught.value.reason == "CURSOR_AHEAD"
    log.publish(3)
    assert View(log, after).cursor == after


def test_the_end_of_a_run_is_shown_only_when_all_of_it_is_committed() -> None:
    story = slow_story(Plot(choices=1, batches=[]))
    story.finish()
    view = View(story.log)
    assert [type(one.event).__name__ for one in view.take()] == ["Start"]
    assert not view.ended
    assert not view.behind
    story.log.publish(2)
    assert view.behind
    assert [type(one.event) for one in view.take()] == [End]
    assert view.ended


# The second writer began after event 3, the third after event 5; event 5 ends the text at byte 6.
BEGAN = [(2, 3), (3, 5)]


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        (Cursor(3, (), 1), False),
        (Cursor(4, (), 1), True),
        (Cursor(2, ((Channel(), 4),), 1), False),
        (Cursor(2, ((Channel(), 5),), 1), True),
        (Cursor(2, ((CALL, 1),), 1), True),
        (Cursor(5, (), 2), False),
        (Cursor(6, (), 2), True),
        (Cursor(7, (), 3), False),
        # Written by hand: nobody knows.
        (Cursor(4), False),
        (START, False),
    ],
)
def test_a_reader_of_what_was_lost_with_its_writer_is_told_so(after: Cursor, lost: bool) -> None:
    log = RunLog(epoch=3)
    log.append_text(Channel(0, ChannelKind.REASONING), "r", 0)
    for _ in range(6):
        log.append_text(Channel(), "ab", 0)
    log.wake()
    log.takeovers = list(BEGAN)
    if not lost:
        view = View(log, after)
        texts = [one.event.text for one in view.take() if isinstance(one.event, Delta)]
        assert len("".join(texts)) == 13 - sum(
            max(log.consumed_at(after.seq)[1], dict(after.ahead).get(log.channel, 0)) for log in log.channels
        )
        assert view.cursor == Cursor(7, (), 3)
        return
    with pytest.raises(TokenwireError) as caught:
        View(log, after)
    assert (caught.value.code, caught.value.reason) == (Code.DATA_LOSS, "JOURNAL_LOST")


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        # A log that is older than what the reader has: of the same writer, or before a later one.
        (Cursor(3, (), 7), "JOURNAL_BEHIND"),
        (Cursor(2, ((Channel(), 4),), 7), "JOURNAL_BEHIND"),
        (Cursor(1, (), 8), "JOURNAL_BEHIND"),
        # A writer that the run never had; its text may be another one, also within the log.
        (Cursor(1, (), 4), "JOURNAL_LOST"),
        # Written by hand.
        (Cursor(3), "CURSOR_AHEAD"),
    ],
)
def test_a_cursor_is_held_against_the_writers_that_the_run_had(after: Cursor, reason: str) -> None:
    log = RunLog(epoch=7)
    log.takeovers = [(5, 1), (7, 1)]
    log.append_text(Channel(), "a", 0)
    log.append_text(Channel(), "bc", 1)
    log.wake()
    for epoch in (None, 7):
        assert [one.event for one in View(log, Cursor(1, (), epoch)).take()]
    assert [one.event for one in View(log, Cursor(1, (), 1)).take()], "all that its writer had kept"
    with pytest.raises(TokenwireError) as caught:
        View(log, after)
    assert caught.value.reason == reason
    assert caught.value.retryable is (reason == "JOURNAL_BEHIND")
