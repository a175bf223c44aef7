"""What a view refuses, and how large its messages get."""

import pytest

from tokenwire.delivery.view import MAX_LOGPROBS, MAX_TEXT_BYTES, View, check_delivery
from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Delta, End, TokenLogprob
from tokenwire.domain.generation import Piece
from tokenwire.domain.request import Buffering, BufferingMode, Delivery
from tokenwire.journal.log import RunLog
from unit.delivery.follower import Follower
from unit.delivery.story import Plot, Story

TEXT, REASONING = Channel(), Channel(0, ChannelKind.REASONING)


def story(*texts: str, channel: Channel = TEXT) -> Story:
    return Story(Plot(choices=1, batches=[(1, [Piece(channel=channel, text=text)]) for text in texts]))


def cut(size: int, kind: ChannelKind = ChannelKind.TEXT) -> Delivery:
    return Delivery(buffering={kind: Buffering(mode=BufferingMode.SIZE, size=size)})


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (Cursor(5), "CURSOR_AHEAD"),
        (Cursor(1, ((Channel(), 6),)), "CURSOR_AHEAD"),
        (Cursor(1, ((REASONING, 1),)), "CURSOR_AHEAD"),
        (Cursor(1, ((Channel(1), 0),)), "CURSOR_AHEAD"),
        (Cursor(1, ((Channel(), 3),)), "CURSOR_INVALID"),
        (Cursor(4, ((Channel(), 2),)), "CURSOR_INVALID"),
    ],
)
def test_a_cursor_past_the_run_or_inside_a_code_point_is_refused(after: Cursor, reason: str) -> None:
    run = story("a水b").whole()
    run.log.markers.pop()
    run.log.head = run.log.committed = 4
    with pytest.raises(InvalidRequestError) as caught:
        View(run.log, after)
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, reason)


@pytest.mark.parametrize("offset", [0, 1, 4, 5])
def test_a_cursor_between_any_two_code_points_is_a_cursor(offset: int) -> None:
    run = story("a水b").whole()
    Follower(run, Cursor(1, ((Channel(), offset),))).to_the_end()


def test_where_number_and_offset_disagree_the_further_one_counts() -> None:
    run = story("one ", "two").whole()
    (delta, _) = Follower(run, Cursor(2, ((Channel(), 1),))).to_the_end().got
    assert isinstance(delta.event, Delta)
    assert delta.event.text == "two"


@pytest.mark.parametrize("delivery", [Delivery(), cut(7), cut(40), cut(4096)], ids=["none", "7", "40", "4096"])
@pytest.mark.parametrize("letter", ["a", "é", "水", "👍"])
def test_messages_are_bounded_and_still_hold_whole_pieces(letter: str, delivery: Delivery) -> None:
    run = story(letter * (70_000 // len(letter.encode())))
    reader = Follower(run, delivery=delivery)
    run.tell(0)
    deltas = [envelope.event for envelope in reader.take().got if isinstance(envelope.event, Delta)]
    sizes = [len(delta.text.encode()) for delta in deltas]
    assert len(sizes) >= 2
    assert max(sizes) <= MAX_TEXT_BYTES
    run.finish()
    reader.to_the_end()


def test_a_piece_that_is_larger_than_a_message_is_divided() -> None:
    run = story("水" * 30_000)
    run.tell(0)
    run.finish()
    size = 2 * MAX_TEXT_BYTES
    got = View(run.log, delivery=cut(size)).take()
    sizes = [len(envelope.event.text.encode()) for envelope in got if isinstance(envelope.event, Delta)]
    assert sum(sizes) == 90_000
    assert max(sizes) <= MAX_TEXT_BYTES


def test_held_text_goes_out_before_the_end_as_an_unfinished_piece() -> None:
    run = story("abc", "d")
    reader = Follower(run, delivery=cut(3))
    run.tell(0)
    run.tell(1)
    assert [envelope.cursor for envelope in reader.take().got] == [Cursor(1), Cursor(2)]
    run.finish()
    last, end = reader.to_the_end().got[-2:]
    assert isinstance(last.event, Delta)
    assert (last.event.text, last.cursor) == ("d", Cursor(3))
    assert isinstance(end.event, End)


def test_reasoning_is_cut_like_the_answer_and_arguments_are_not_unless_asked() -> None:
    for channel, count in ((Channel(), 2), (REASONING, 2), (Channel(0, ChannelKind.TOOL_CALL), 3)):
        run = story("abc", "d", "e", channel=channel)
        reader = Follower(run, delivery=cut(4))
        for number in range(3):
            run.tell(number)
            reader.take()
        run.finish()
        deltas = [envelope for envelope in reader.to_the_end().got if isinstance(envelope.event, Delta)]
        assert len(deltas) == count


def test_dropped_text_is_out_of_range_for_new_and_for_old_readers() -> None:
    run = story("abc").whole()
    old = View(run.log)
    run.log.drop()
    for view in (old, View(run.log), View(run.log, Cursor(9))):
        assert view.behind
        with pytest.raises(TokenwireError) as caught:
            view.take()
        assert (caught.value.code, caught.value.reason) == (Code.OUT_OF_RANGE, "TEXT_DROPPED")


def test_token_ids_and_full_text_are_told_only_if_asked_for() -> None:
    piece, special = (
        Piece(channel=Channel(), text="a", token_ids=(7,)),
        Piece(channel=Channel(), text="", token_ids=(9,)),
    )
    run = Story(Plot(choices=1, batches=[(0, [piece, special])])).whole()
    (_, delta, end) = (envelope.event for envelope in View(run.log).take())
    assert isinstance(delta, Delta)
    assert isinstance(end, End)
    assert (delta.token_count, delta.token_ids) == (1, ())
    assert (end.choices[0].trailing, end.texts) == ((), ())
    (_, delta, end) = (envelope.event for envelope in View(run.log, token_ids=True, full_text=True).take())
    assert isinstance(delta, Delta)
    assert isinstance(end, End)
    assert (delta.token_count, delta.token_ids) == (1, (7,))
    assert ([one.token_ids for one in end.choices[0].trailing], end.texts) == ([(9,)], ("a",))


@pytest.mark.parametrize(
    ("delivery", "field"),
    [
        (Delivery(unknown=("pacing",)), "delivery.pacing"),
        (Delivery(buffering={ChannelKind.TEXT: Buffering(mode=BufferingMode.WORD)}), "delivery.buffering.mode"),
        (
            Delivery(buffering={ChannelKind.REASONING: Buffering(max_hold_ms=5)}),
            "delivery.reasoning_buffering.max_hold_ms",
        ),
        (
            Delivery(buffering={ChannelKind.TOOL_CALL: Buffering(mode=BufferingMode.LINE)}),
            "delivery.tool_call_buffering.mode",
        ),
    ],
)
def test_what_this_version_does_not_have_is_refused_by_name(delivery: Delivery, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_delivery(delivery)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert caught.value.reason == "FEATURE_UNSUPPORTED"


def test_what_this_version_has_is_let_through() -> None:
    check_delivery(cut(3))
    check_delivery(Delivery(buffering={ChannelKind.TEXT: Buffering(max_hold_ms=0)}))


def test_a_message_carries_no_more_log_probabilities_than_it_can() -> None:
    near = tuple(TokenLogprob(token_id=one, token="", logprob=-1.0) for one in range(MAX_LOGPROBS // 3))
    told = (TokenLogprob(token_id=1, token="", logprob=-1.0, top=near, given=near[:9]),)
    log = RunLog()
    for _ in range(5):
        log.append_text(TEXT, "ab", 0, [1], 1, told)
    log.wake()
    deltas = [envelope.event for envelope in View(log).take()]
    assert [delta.text for delta in deltas if isinstance(delta, Delta)] == ["abab", "abab", "ab"]
    whole = View(log, delivery=cut(3)).take()
    assert "".join(one.event.text for one in whole if isinstance(one.event, Delta)) == "ababababa"


def test_one_event_is_never_split_for_its_log_probabilities() -> None:
    near = tuple(TokenLogprob(token_id=one, token="", logprob=-1.0) for one in range(MAX_LOGPROBS + 1))
    log = RunLog()
    log.append_text(TEXT, "a", 0, [1], 1, (TokenLogprob(token_id=1, token="", logprob=-1.0, top=near),))
    log.wake()
    (envelope,) = View(log).take()
    assert isinstance(envelope.event, Delta)
    assert envelope.event.text == "a"
