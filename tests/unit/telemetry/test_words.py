"""Labels are few, whatever clients send."""

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.telemetry.names import OTHER
from tokenwire.telemetry.words import MAX_WORDS, Words, is_reason


def test_a_thousand_words_become_a_hundred_labels_and_one_for_the_rest() -> None:
    words = Words(lambda word: True)
    labels = {words.label(f"model-{number}") for number in range(1000)}
    assert len(labels) == MAX_WORDS + 1
    assert OTHER in labels
    # Those that came in time keep their own.
    assert words.label("model-0") == "model-0"
    assert len(words.seen) == MAX_WORDS


def test_a_word_that_is_not_known_takes_nobodys_place() -> None:
    words = Words(lambda word: word == "tiny")
    assert {words.label(f"odd-{number}") for number in range(1000)} == {OTHER}
    assert words.label("tiny") == "tiny"


def test_a_word_is_asked_about_once() -> None:
    asked: list[str] = []
    words = Words(lambda word: not asked.append(word))  # type: ignore[func-returns-value]
    assert [words.label("tiny") for _ in range(3)] == ["tiny"] * 3
    assert asked == ["tiny"]


def test_reasons_are_told_from_sentences() -> None:
    assert is_reason("ENGINE_LOST")
    assert not any(map(is_reason, ["the engine is lost", "Lost", "", "ENGINE LOST", "É", "X" * 41]))


@given(st.text())
def test_any_word_is_a_reason_or_not(word: str) -> None:
    assert is_reason(word) == (word.isascii() and 0 < len(word) <= 40 and word == word.upper() and is_reason(word))
