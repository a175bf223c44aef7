"""Choices as a regular expression."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.request import Constraint
from tokenwire.engines.sglang.constraint import native, of_chat

CHOICES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=4)


@given(choices=CHOICES, other=st.text())
def test_the_expression_matches_the_choices_and_nothing_else(choices: list[str], other: str) -> None:
    constraint = Constraint(choice=tuple(choices))
    expression = re.compile(native(constraint)["regex"])
    assert all(expression.fullmatch(choice) for choice in choices)
    assert bool(expression.fullmatch(other)) == (other in choices)
    assert of_chat(constraint) == native(constraint)
