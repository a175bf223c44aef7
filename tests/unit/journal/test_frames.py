"""A run's events, cut into frames anywhere, make the same log; what is damaged changes nothing."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.run_events import CHANNELS, START, Text, Written, contents, run_events, write
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import ChoiceEnd, End, FinishReason, Timings, TokenLogprob, Usage, UsageUpdate
from tokenwire.journal.frames import apply_frame, apply_frames, encode_frame
from tokenwire.journal.log import UNKNOWN_ID, RunLog
from tokenwire.journal.record import DamagedError

END = End(choices=(), usage=Usage(), timings=Timings(), channels=())


def piece(text: str, channel: Channel = CHANNELS[0], *ids: int) -> Text:
    return Text(channel, text, len(ids), ids, ())


def frames(events: list[Written], cuts: set[int]) -> tuple[RunLog, list[bytes]]:
    """Writes events and cuts a frame after each of these places."""
    log, made, after, told = RunLog(), [], 0, 0
    for place, event in enumerate(events):
        write(log, [event], place)
        if place in cuts or place == len(events) - 1:
            made.append(encode_frame(log, after, told))
            after, told = log.head, len(log.choice_ends)
    return log, made


@given(run_events(), st.sets(st.integers(0, 15)))
def test_any_run_cut_anywhere_is_read_back_as_it_was(events: list[Written], cuts: set[int]) -> None:
    log, made = frames(events, cuts)
    copy = RunLog()
    for one in made:
        apply_frame(copy, one)
    assert contents(copy) == contents(log)
    assert copy.choice_ends == log.choice_ends
    assert copy.size == log.size
    assert copy.closed == log.closed


@given(run_events(max_size=20), st.sets(st.integers(0, 22)), st.data())
def test_many_frames_at_once_make_the_same_log_up_to_the_first_that_is_damaged(
    events: list[Written], cuts: set[int], data: st.DataObject
) -> None:
    log, made = frames(events, cuts)
    copy = RunLog()
    apply_frames(copy, made)
    assert (contents(copy), copy.choice_ends, copy.size) == (contents(log), log.choice_ends, log.size)
    place = data.draw(st.integers(0, len(made) - 1))
    damaged = bytearray(made[place])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    made[place] = bytes(damaged)
    one_by_one, at_once = RunLog(), RunLog()
    refused = []
    for one in made:
        try:
            apply_frame(one_by_one, one)
        except DamagedError:
            refused.append(one_by_one)
            break
    try:
        apply_frames(at_once, made)
    except DamagedError:
        refused.append(at_once)
    assert len(refused) in (0, 2)
    assert (contents(at_once), at_once.choice_ends) == (contents(one_by_one), one_by_one.choice_ends)


@given(run_events(), st.sets(st.integers(0, 15)), st.data())
def test_a_frame_that_does_not_follow_is_refused(events: list[Written], cuts: set[int], data: st.DataObject) -> None:
    _, made = frames(events, cuts)
    assume(len(made) > 1)
    left_out = data.draw(st.integers(0, len(made) - 2))
    copy = RunLog()
    for one in made[:left_out]:
        apply_frame(copy, one)
    before = contents(copy), dict(copy.choice_ends)
    # A frame of choices' ends alone holds no number.
    assume(contents_changed(copy, made[left_out]))
    with pytest.raises(DamagedError):
        apply_frame(copy, made[left_out + 1])
    assert (contents(copy), copy.choice_ends) == before


def contents_changed(log: RunLog, frame: bytes) -> bool:
    copy = RunLog()
    if log.head:
        apply_frame(copy, encode_frame(log, 0))
    apply_frame(copy, frame)
    return copy.head != log.head


@given(run_events(), st.sets(st.integers(0, 15)), st.data())
def test_damaged_bytes_are_refused_or_make_a_log_that_holds_together(
    events: list[Written], cuts: set[int], data: st.DataObject
) -> None:
    _, made = frames(events, cuts)
    copy = RunLog()
    for one in made[:-1]:
        apply_frame(copy, one)
    before = contents(copy), dict(copy.choice_ends), copy.size
    damaged = bytearray(made[-1])
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged) - 1))]
    else:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        apply_frame(copy, bytes(damaged))
    except DamagedError:
        assert (contents(copy), copy.choice_ends, copy.size) == before
        return
    # A letter that became another one cannot be noticed here; the entries around frames have a checksum.
    numbers = [marked.seq for marked in copy.markers]
    for channel in copy.channels:
        numbers += channel.seqs
        assert len(channel.seqs) == len(channel.ends) == len(channel.tokens) == len(channel.at_ms)
        assert channel.ends[-1] == len(channel.text)
        assert channel.tokens[-1] == len(channel.token_ids)
        assert list(channel.ends) == sorted(channel.ends)
        assert all(channel.is_boundary(end) for end in channel.ends)
        channel.text.decode()
    if not copy.dropped:
        assert sorted(numbers) == list(range(1, copy.head + 1))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_hold_together(data: bytes) -> None:
    log = RunLog()
    write(log, [START, piece("水", CHANNELS[0], 7)])
    before = contents(log)
    try:
        apply_frame(log, data)
    except DamagedError:
        assert contents(log) == before


def test_one_piece_of_text_costs_few_bytes() -> None:
    log = RunLog()
    write(log, [START, *(piece(" word", CHANNELS[0], 30_000) for _ in range(1000))], 100_000)
    frame = encode_frame(log, log.head - 1)
    assert len(frame) < 40
    whole = encode_frame(log, 0)
    assert len(whole) < 1000 * 26


def test_ids_that_the_engine_did_not_tell_stay_untold() -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, Text(CHANNELS[0], "ab", 2, (), ())])
    apply_frame(copy, encode_frame(log, 0))
    write(log, [Text(CHANNELS[0], "c", 1, (), ())])
    apply_frame(copy, encode_frame(log, 2))
    assert list(copy.channels[0].token_ids) == [UNKNOWN_ID] * 3


def test_log_probabilities_ride_with_their_own_event() -> None:
    told = (TokenLogprob(token_id=1, token="a", logprob=-0.5),)
    log, copy = RunLog(), RunLog()
    write(log, [START, piece("a"), Text(CHANNELS[0], "b", 1, (1,), told)])
    apply_frame(copy, encode_frame(log, 0))
    write(log, [Text(CHANNELS[0], "c", 1, (1,), told), piece("d")])
    apply_frame(copy, encode_frame(log, 3))
    assert copy.channels[0].logprobs == {1: told, 2: told}


def test_how_a_choice_ended_is_told_once_and_without_any_event() -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, piece("a")])
    apply_frame(copy, encode_frame(log, 0))
    log.note_end(ChoiceEnd(choice=0, finish_reason=FinishReason.STOP))
    apply_frame(copy, encode_frame(log, 2))
    assert copy.choice_ends == log.choice_ends
    assert copy.head == 2
    write(log, [piece("b", CHANNELS[1])])
    lean = encode_frame(log, 2, told=1)
    assert len(lean) < len(encode_frame(log, 2))
    apply_frame(copy, lean)
    assert contents(copy) == contents(log)


def test_how_choices_ended_is_not_told_again_beside_events_without_text() -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, ChoiceEnd(choice=0, finish_reason=FinishReason.STOP)])
    apply_frame(copy, encode_frame(log, 0))
    write(log, [UsageUpdate(attempt=1, usage=Usage())])
    assert len(encode_frame(log, 1, told=1)) < len(encode_frame(log, 1))
    apply_frame(copy, encode_frame(log, 1, told=1))
    assert copy.choice_ends == log.choice_ends


def test_of_many_frames_those_after_a_missing_one_are_refused() -> None:
    words = [piece(" word", CHANNELS[0], 7)] * 20
    log, made = frames([START, *words, UsageUpdate(attempt=1, usage=Usage()), *words], set(range(60)))
    for missing in (10, 21):
        copy = RunLog()
        with pytest.raises(DamagedError):
            apply_frames(copy, made[:missing] + made[missing + 1 :])
        assert contents(copy) == contents(log, missing)


def test_a_piece_that_counts_other_tokens_before_it_is_refused() -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, piece("ab", CHANNELS[0], 1, 2)])
    write(copy, [START, piece("ab", CHANNELS[0], 1)])
    write(log, [piece("c", CHANNELS[0], 3)])
    with pytest.raises(DamagedError):
        apply_frame(copy, encode_frame(log, 2))
    with pytest.raises(DamagedError):
        apply_frames(copy, [encode_frame(log, 2)])
    assert copy.head == 2


def test_several_pieces_that_are_no_text_are_refused() -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, piece("letters"), piece("more")])
    frame = bytearray(encode_frame(log, 0))
    frame[frame.index(b"letters")] = 0xFF
    with pytest.raises(DamagedError):
        apply_frame(copy, bytes(frame))
    assert copy.head == 0


def test_a_run_without_its_text_is_kept_with_the_numbers_that_are_left() -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, piece("a"), piece("b"), END])
    log.drop()
    apply_frame(copy, encode_frame(log, 0))
    assert contents(copy) == contents(log)
    assert copy.dropped
    assert copy.closed
    assert copy.size == log.size


@pytest.mark.parametrize("dropped", [False, True])
def test_nothing_follows_the_end_or_text_that_was_given_up(dropped: bool) -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, piece("a"), *([] if dropped else [END])])
    more = RunLog()
    write(more, [START, piece("a"), *([] if dropped else [piece("b")]), piece("c")])
    if dropped:
        log.drop()
    apply_frame(copy, encode_frame(log, 0))
    before = contents(copy)
    with pytest.raises(DamagedError):
        apply_frame(copy, encode_frame(more, copy.head))
    assert contents(copy) == before


def test_a_piece_that_begins_inside_a_code_point_is_refused() -> None:
    log, copy = RunLog(), RunLog()
    write(log, [START, piece("é")])
    apply_frame(copy, encode_frame(log, 0))
    write(log, [piece("水")])
    frame = bytearray(encode_frame(log, 2))
    frame[frame.index("水".encode())] = 0xA0
    with pytest.raises(DamagedError):
        apply_frame(copy, bytes(frame))
    assert copy.head == 2
