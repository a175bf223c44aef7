"""What the store's server answers, as values."""

from typing import Any

import pytest

from tokenwire.journal.redis.replies import appended, outcome
from tokenwire.journal.redis.store import Outcome, StoreError, Verdict


def test_the_last_event_s_number_alone_says_that_an_append_was_done() -> None:
    assert appended(7, 7) == Outcome(Verdict.DONE, 7)
    assert appended([1, 7, 1], 7) == Outcome(Verdict.DONE, 7, cancelled=True)
    assert appended([2, 9, 0], 7) == Outcome(Verdict.HEAD, 9)


@pytest.mark.parametrize("answer", [8, [1, 8, 0], b"OK", None, [1, 7], [5, 7, 0]])
def test_the_answer_to_something_else_is_no_answer_to_an_append(answer: Any) -> None:
    with pytest.raises(StoreError):
        appended(answer, 7)


def test_a_number_is_no_answer_to_another_step() -> None:
    with pytest.raises(StoreError):
        outcome(1)
