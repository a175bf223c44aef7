"""Answers of the store's server, however they are cut."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tokenwire.journal.redis.resp import Answers, RefusalError, packed

ANSWERS = some.recursive(
    some.none() | some.integers(-(2**63), 2**63 - 1) | some.binary(max_size=20),
    lambda inner: some.lists(inner, max_size=4),
    max_leaves=12,
)


def said(value: Any) -> bytes:
    """Returns an answer as a server sends it."""
    match value:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case _:
            return b"*%d\r\n" % len(value) + b"".join(map(said, value))


@given(values=some.lists(ANSWERS, max_size=4), cuts=some.lists(some.integers(0, 200), max_size=6))
def test_answers_are_the_same_however_they_are_cut(values: list[Any], cuts: list[int]) -> None:
    data = b"".join(map(said, values))
    some_places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for places in (some_places, range(len(data) + 1)):
        answers, read = Answers(), []
        for begin, end in pairwise(places):
            read += answers.feed(data[begin:end])
        assert read == values


def test_an_answer_is_given_as_soon_as_it_is_whole() -> None:
    answers = Answers()
    assert answers.feed(b":1\r\n$3\r\nab") == [1]
    assert answers.feed(b"c\r") == []
    assert answers.feed(b"\n*1\r\n:2") == [b"abc"]
    assert answers.feed(b"\r\n") == [[2]]


def test_what_is_refused_stands_where_its_answer_would() -> None:
    first, second, third = Answers().feed(b"+OK\r\n-NOSCRIPT no such\r\n*-1\r\n")
    assert (first, third) == (b"OK", None)
    assert isinstance(second, RefusalError)
    assert str(second) == "NOSCRIPT no such"


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b":x\r\n", b"$\r\n", b":1\r\n\x00"])
def test_what_is_no_answer_is_noticed(data: bytes) -> None:
    with pytest.raises(ValueError):
        Answers().feed(data)


def test_a_command_is_a_list_of_words() -> None:
    assert packed(("SET", b"\xff\r\n", 7)) == b"*3\r\n$3\r\nSET\r\n$3\r\n\xff\r\n\r\n$1\r\n7\r\n"
