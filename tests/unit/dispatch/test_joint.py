"""Stop strings are met where a text was broken off as if it had not been."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.dispatch.joint import Joint, stop_in
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece

LETTERS = st.text("ab", max_size=24)
STOPS = st.lists(st.text("ab", min_size=1, max_size=6), max_size=3)


@dataclass(frozen=True)
class Answer:
    """A text that ends with a stop string, or at its length."""

    text: str
    stop: str | None


def unbroken(text: str, stops: list[str], *, include: bool) -> Answer:
    """Returns what an engine makes of a text that it writes itself."""
    found = stop_in(text, stops, 0)
    if found is None:
        return Answer(text, None)
    end, stop = found
    return Answer(text[: end if include else end - len(stop)], stop)


def written(told: list[Generated]) -> Answer:
    """Returns what is in the journal, and checks that nothing follows the end."""
    done = told[-1]
    assert isinstance(done, ChoiceDone)
    pieces = [one for one in told if isinstance(one, Piece)]
    assert len(pieces) == len(told) - 1
    assert (done.finish_reason is FinishReason.STOP_SEQUENCE) == (done.matched_stop is not None)
    assert done.matched_stop is None or isinstance(done.matched_stop, str)
    return Answer("".join(piece.text for piece in pieces), done.matched_stop)


def go_on(joint: Joint, text: str, stops: list[str], cuts: list[int], *, include: bool) -> list[Generated]:
    """Has an engine write a text in pieces, cut at these places; it looks for stop strings in this text alone."""
    own = unbroken(text, stops, include=include)
    reason = FinishReason.LENGTH if own.stop is None else FinishReason.STOP_SEQUENCE
    places = sorted({0, len(own.text), *(cut for cut in cuts if cut < len(own.text))})
    pieces = [own.text[start:end] for start, end in pairwise(places)] or [""]
    items: list[Piece | ChoiceDone] = [
        Piece(channel=Channel(), text=piece, token_ids=(number,)) for number, piece in enumerate(pieces)
    ]
    items.append(ChoiceDone(choice=0, finish_reason=reason, matched_stop=own.stop))
    told: list[Generated] = []
    for item in items:
        if joint.is_open:
            told += joint.take(item)
        else:
            told.append(item)
        if told and isinstance(told[-1], ChoiceDone):
            break
    return told


@given(text=LETTERS, stops=STOPS, out=st.integers(0, 24), kept=st.integers(0, 4), cuts=st.lists(st.integers(1, 24)))
@pytest.mark.parametrize("include", [False, True])
def test_a_broken_answer_ends_where_the_unbroken_one_does(
    text: str, stops: list[str], out: int, kept: int, cuts: list[int], include: bool
) -> None:
    whole = unbroken(text, stops, include=include)
    end = len(text) if whole.stop is None else len(whole.text) + (0 if include else len(whole.stop))
    # It breaks before a stop string is complete; then some text is out, and some is known of the tokens alone.
    broken = min(out, max(0, end - (whole.stop is not None)))
    known = min(broken + kept, max(0, end - (whole.stop is not None)))
    joint = Joint(text[:broken], stops, include_stop=include, pending=text[broken:known])
    rest = written(go_on(joint, text[known:], stops, cuts, include=include))
    assert rest.stop == whole.stop
    # What is out of a stop string stays out.
    assert text[:broken] + rest.text == max(whole.text, text[:broken], key=len)


def piece(text: str, *ids: int) -> Piece:
    return Piece(channel=Channel(), text=text, token_ids=ids)


def done(stop: str | None = None) -> ChoiceDone:
    reason = FinishReason.LENGTH if stop is None else FinishReason.STOP_SEQUENCE
    return ChoiceDone(choice=0, finish_reason=reason, matched_stop=stop)


def test_text_waits_only_as_long_as_a_stop_string_may_be_going_on() -> None:
    joint = Joint("The EN", ["END", "NO"])
    assert joint.is_open
    assert joint.take(piece("", 1)) == []
    assert joint.take(piece("O", 2)) == [
        Piece(channel=Channel(), text="", token_ids=[1, 2], token_count=2),
        done("NO"),
    ]
    passed = Joint("The EN", ["ENTER"])
    assert passed.take(piece("T", 1)) == []
    assert passed.take(piece("ON", 2)) == [piece("T", 1), piece("ON", 2)]
    assert not passed.is_open
    assert not Joint("The", ["END"]).is_open


def test_tokens_behind_the_stop_string_are_no_part_of_the_answer() -> None:
    joint = Joint("a E", ["END"], include_stop=True)
    assert joint.take(piece("N", 1)) == []
    assert joint.take(piece("D and more", 2)) == [
        Piece(channel=Channel(), text="ND", token_ids=[1, 2], token_count=2),
        done("END"),
    ]


def test_a_stop_string_before_the_least_number_of_tokens_is_none() -> None:
    joint = Joint("E", ["END"], min_tokens=2)
    assert joint.take(piece("ND", 1)) == [piece("ND", 1)]
    assert not joint.is_open
    joint = Joint("E", ["END"], min_tokens=2)
    assert joint.take(piece("N", 1)) == []
    assert joint.take(piece("D", 2))[-1] == done("END")


def test_what_the_engine_cut_off_as_its_own_stop_string_may_have_completed_another_one_before() -> None:
    joint = Joint("X", ["Xab", "bcd"])
    assert joint.take(piece("a", 1)) == []
    told = joint.take(done("bcd"))
    assert told[-1] == done("Xab")
    assert written(told).text == ""


def test_text_that_was_held_back_comes_first() -> None:
    joint = Joint("a", ["<end>"], pending="b<e")
    assert joint.take(piece("x", 5)) == [Piece(channel=Channel(), text="b<e", token_count=0), piece("x", 5)]
    alone = Joint("a", ["zzz"], pending="b")
    assert alone.is_open
    assert alone.take(done()) == [Piece(channel=Channel(), text="b", token_count=0), done()]


@pytest.mark.parametrize(
    ("text", "after", "found"),
    [
        ("a END b", 0, (5, "END")),
        ("a END b", 4, (5, "END")),
        ("a END b", 5, None),
        ("xEND", 0, (4, "xEND")),
    ],
)
def test_the_first_stop_string_that_ends_behind_a_place(text: str, after: int, found: tuple[int, str] | None) -> None:
    assert stop_in(text, ["END", "xEND"], after) == found
