"""Tool calls out of an answer's text."""

import json

import pytest
from hypothesis import given, strategies

from tokenwire.engines.llamacpp.calls import CLOSE, OPEN, Argued, Called, CallParser, Part, Said
from unit.engines.llamacpp.cuts import PLACES, cut, texts

JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=8),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=4), inner),
    max_leaves=6,
)
ARGUMENTS = strategies.dictionaries(strategies.text(max_size=6), JSON, max_size=3)


def read(pieces: list[str], *, expected: bool = False) -> tuple[str, list[tuple[str, str]], CallParser]:
    """Returns the answer's text, the calls, and the parser."""
    parser = CallParser(expected=expected)
    parts: list[Part] = []
    for piece in pieces:
        parts += parser.feed(piece)
    parts += parser.finish()
    text = ""
    calls: list[tuple[str, str]] = []
    for part in parts:
        match part:
            case Said(said):
                text += said
            case Called(index, name):
                assert index == len(calls)
                calls.append((name, ""))
            case Argued(index, more):
                assert index == len(calls) - 1
                assert more
                calls[index] = (calls[index][0], calls[index][1] + more)
    return text, calls, parser


def written(name: str, arguments: str) -> str:
    return f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n{CLOSE}'


@given(strategies.lists(strategies.tuples(strategies.text(min_size=1, max_size=8), ARGUMENTS), max_size=3), PLACES)
def test_calls_and_the_text_before_them_are_told_apart_in_any_cuts(
    asked: list[tuple[str, dict[str, object]]], places: list[int]
) -> None:
    told = [(name, json.dumps(arguments)) for name, arguments in asked]
    whole = "I look.\n" + "\n".join(written(*call) for call in told)
    text, calls, parser = read(cut(whole, places))
    assert (text, calls) == ("I look.\n", told)
    assert parser.begun == parser.ended == len(told)


@given(texts(OPEN, CLOSE, written("a", '{"b": "}"}'), '\n{"name": "a", "arguments": {', "}", " ", '"', "\\"), PLACES)
def test_whatever_is_written_reads_the_same_in_any_cuts(whole: str, places: list[int]) -> None:
    assert read(cut(whole, places))[:2] == read([whole])[:2] == read(list(whole))[:2]


@given(strategies.text().filter(lambda text: OPEN not in text), PLACES)
def test_a_text_without_calls_is_the_answer(whole: str, places: list[int]) -> None:
    assert read(cut(whole, places))[:2] == (whole, [])


def test_arguments_are_told_as_they_come() -> None:
    parser = CallParser()
    assert parser.feed(f'{OPEN}\n{{"name": "a", "arguments": {{"b') == [Called(0, "a"), Argued(0, '{"b')]
    assert parser.feed('": "\\') == [Argued(0, '": "\\')]
    assert parser.feed('"}') == [Argued(0, '"}')]
    assert parser.ended == 0
    assert parser.feed('"}}') == [Argued(0, '"}')]
    assert parser.ended == 1


@pytest.mark.parametrize("inner", ["hello", '{"arguments": {}}', '{"name": 5, "arguments": {}}', '{"name": "a"}', ""])
def test_what_is_no_call_between_the_tags_is_text(inner: str) -> None:
    assert read([f"x{OPEN}{inner}{CLOSE}y"])[:2] == (f"x{OPEN}{inner}{CLOSE}y", [])


def test_a_tag_with_a_long_text_and_no_call_is_not_held_for_ever() -> None:
    parser = CallParser()
    parser.feed(OPEN)
    assert parser.holding
    parser.feed("a" * 2000)
    assert not parser.holding


def test_white_space_after_a_call_is_left_out_and_text_is_not() -> None:
    assert read([written("a", "{}"), "\n ", "\nDone"])[:2] == ("Done", [("a", "{}")])


@pytest.mark.parametrize("end", ["<tool", OPEN, f'{OPEN}\n{{"name": "b'])
def test_the_beginning_of_a_call_is_no_answer_where_calls_come(end: str) -> None:
    assert read([written("a", "{}"), "\n", end])[:2] == ("", [("a", "{}")])
    assert read([end], expected=True)[:2] == ("", [])


def test_the_beginning_of_a_tag_is_the_answers_text_where_no_call_came() -> None:
    assert read(["1 <tool"])[:2] == ("1 <tool", [])


def test_a_call_that_breaks_off_keeps_its_arguments_and_has_not_ended() -> None:
    text, calls, parser = read([f'{OPEN}\n{{"name": "a", "arguments": {{"b": "c'])
    assert (text, calls) == ("", [("a", '{"b": "c')])
    assert (parser.begun, parser.ended) == (1, 0)
