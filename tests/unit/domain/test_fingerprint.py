"""Requests that ask for the same run have one fingerprint, wherever they come from; all others differ."""

from dataclasses import replace
from typing import Any

import pytest

from tokenwire.domain.cursor import Cursor
from tokenwire.domain.fingerprint import fingerprint
from tokenwire.domain.request import (
    Constraint,
    Message,
    Role,
    RunOptions,
    Sampling,
    SamplingPreset,
    Submission,
    ToolMode,
)

ASKED = Submission(prompt="hi", run=RunOptions(labels={"b": "2", "a": "1"}))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "ho"},
        {"model": "m"},
        {"prompt": None, "prompt_ids": (1,)},
        {"prompt": None, "messages": (Message(role=Role.USER, content="hi"),)},
        {"sampling": Sampling(temperature=0.0)},
        {"sampling": Sampling(preset=SamplingPreset.BALANCED)},
        {"constraint": Constraint(regex="a")},
        {"constraint": Constraint(grammar="a")},
        {"tool_choice": ToolMode.NONE},
        {"tool_choice": "NONE"},
        {"run": RunOptions(labels={"a": "2", "b": "1"})},
    ],
)
def test_what_is_asked_for_counts(fields: dict[str, Any]) -> None:
    assert fingerprint(replace(ASKED, **fields)) != fingerprint(ASKED)


def test_where_a_reader_stands_and_the_order_of_labels_do_not_count() -> None:
    same = replace(ASKED, after=Cursor(3), fingerprint=b"x", run=RunOptions(labels={"a": "1", "b": "2"}))
    assert fingerprint(same) == fingerprint(ASKED)


def test_it_is_the_same_in_every_version() -> None:
    """Replicas of two versions compare it: a change here makes a retry in mid-upgrade another request."""
    assert fingerprint(ASKED).hex()[:16] == "4e4a08c8a002a956"
