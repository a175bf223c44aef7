"""A model's reasoning out of its text."""

import pytest
from hypothesis import given, strategies

from tokenwire.engines.llamacpp.thoughts import CLOSE, OPEN, Thoughts
from unit.engines.llamacpp.cuts import PLACES, cut, texts


def read(pieces: list[str], *, opened: bool = False) -> tuple[str, str]:
    """Returns reasoning and answer."""
    thoughts = Thoughts(opened)
    told = [*(thoughts.feed(piece) for piece in pieces), thoughts.finish()]
    return "".join(one for one, _ in told), "".join(one for _, one in told)


@given(texts(OPEN, CLOSE, "\n", " ", "a"), PLACES, strategies.booleans())
def test_whatever_is_written_reads_the_same_in_any_cuts(whole: str, places: list[int], opened: bool) -> None:
    assert read(cut(whole, places), opened=opened) == read([whole], opened=opened) == read(list(whole), opened=opened)


@given(strategies.text().filter(lambda text: not text.lstrip().startswith(OPEN)), PLACES)
def test_a_text_that_does_not_begin_with_reasoning_is_the_answer(whole: str, places: list[int]) -> None:
    assert read(cut(whole, places)) == ("", whole)


@pytest.mark.parametrize(
    ("whole", "opened", "reasoning", "answer"),
    [
        ("<think>\nI see.\n</think>\n\nYes.\n", False, "I see.", "Yes.\n"),
        ("\n<think>a</think>b", False, "a", "b"),
        ("a < b </thin </think> c", True, "a < b </thin", "c"),
        ("<think></think>b <think>c</think>", False, "", "b <think>c</think>"),
        ("never ends </thi", True, "never ends </thi", ""),
        ("<thi", False, "", "<thi"),
        (" \n", False, "", " \n"),
    ],
)
def test_reasoning_ends_at_its_tag(whole: str, opened: bool, reasoning: str, answer: str) -> None:
    assert read([whole], opened=opened) == (reasoning, answer)


def test_reasoning_is_told_as_it_comes() -> None:
    thoughts = Thoughts(opened=True)
    assert thoughts.feed("I see") == ("I see", "")
    assert thoughts.thinking
    assert thoughts.feed(" it </thi") == (" it", "")
    assert thoughts.holding
    assert thoughts.feed("nk>Yes") == ("", "Yes")
    assert not thoughts.thinking
    assert not thoughts.holding
