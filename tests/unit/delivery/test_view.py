"""Every reader gets the run, whole and once, however it is cut and wherever it begins."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, Cursor
from tokenwire.domain.events import Delta, End
from tokenwire.domain.generation import Piece
from tokenwire.domain.request import Delivery
from unit.delivery.follower import Follower
from unit.delivery.story import Plot, Story, deliveries, plots


@settings(max_examples=300)
@given(plot=plots(), ways=st.lists(deliveries(), min_size=1, max_size=3), takes=st.lists(st.booleans(), max_size=10))
def test_readers_that_join_and_resume_at_any_time_get_the_run_byte_for_byte(
    plot: Plot, ways: list[Delivery], takes: list[bool]
) -> None:
    story = Story(plot)
    followers = [Follower(story, delivery=way) for way in ways]
    for number, take in enumerate(takes[: len(plot.batches)] + [True] * (len(plot.batches) - len(takes))):
        story.tell(number)
        if take:
            for follower in followers[: len(ways)]:
                follower.take()
            # One more goes on from where the first one is, in the mode of the last.
            followers.append(Follower(story, followers[0].view.cursor, ways[-1]))
    story.finish()
    for follower in followers:
        follower.to_the_end()


@settings(max_examples=150)
@given(plot=plots(), first=deliveries(), second=deliveries())
def test_every_cursor_that_was_handed_out_resumes_exactly(plot: Plot, first: Delivery, second: Delivery) -> None:
    story = Story(plot)
    reader = Follower(story, delivery=first).take()
    for number in range(len(plot.batches)):
        story.tell(number)
        reader.take()
    story.finish()
    reader.to_the_end()
    for at, envelope in enumerate(reader.got):
        rest = Follower(story, envelope.cursor, second).to_the_end()
        before = [one.event for one in reader.got[: at + 1]]
        ids = [one for event in (*before, *(one.event for one in rest.got)) for one in _ids(event)]
        # Token ids ride with the last byte of their event, so that a resume repeats and loses none.
        assert sorted(ids) == sorted(one for fact in story.facts for one in fact.ids)


@settings(max_examples=150)
@given(plot=plots(), delivery=deliveries())
def test_every_number_written_by_hand_is_a_cursor(plot: Plot, delivery: Delivery) -> None:
    story = Story(plot).whole()
    for seq in range(story.head + 1):
        Follower(story, Cursor(seq), delivery).to_the_end()


def test_whoever_reads_on_after_the_end_gets_the_end_again_and_nothing_else() -> None:
    story = Story(Plot(choices=1, batches=[(0, [Piece(channel=Channel(), text="a")])])).whole()
    rest = Follower(story, Cursor(story.head)).to_the_end()
    assert [type(envelope.event) for envelope in rest.got] == [End]


@settings(max_examples=100)
@given(plot=plots(), delivery=deliveries())
def test_cursors_never_go_back_in_any_channel(plot: Plot, delivery: Delivery) -> None:
    story = Story(plot).whole()
    before = Cursor()
    for envelope in Follower(story, delivery=delivery).to_the_end().got:
        old, new = story.consumed(before), story.consumed(envelope.cursor)
        assert envelope.cursor.seq >= before.seq
        assert all(new[channel] >= old[channel] for channel in story.texts)
        before = envelope.cursor


@settings(max_examples=100)
@given(plot=plots(), delivery=deliveries(), takes=st.lists(st.booleans(), min_size=10, max_size=10))
def test_the_same_mode_gives_the_same_pieces_however_the_text_came(
    plot: Plot, delivery: Delivery, takes: list[bool]
) -> None:
    story = Story(plot)
    # The follower holds every message against pieces that were cut from the whole text at once.
    reader = Follower(story, delivery=delivery)
    for number, take in zip(range(len(plot.batches)), takes, strict=False):
        story.tell(number)
        if take:
            reader.take()
    story.finish()
    reader.to_the_end()


def _ids(event: object) -> tuple[int, ...]:
    return event.token_ids if isinstance(event, Delta) else ()
