"""What the domain's values promise to everybody."""

import dataclasses
from types import ModuleType
from typing import Any

import pytest

from tokenwire.domain import context, cursor, errors, events, request
from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.request import (
    BeamSearch,
    KvOptions,
    Limits,
    Message,
    Output,
    Role,
    RunOptions,
    Sampling,
    Stopping,
    Submission,
    engine_fields,
)


@pytest.mark.parametrize("module", [context, cursor, errors, events, request], ids=lambda module: module.__name__)
def test_values_cannot_be_changed_and_hold_nothing_else(module: ModuleType) -> None:
    kinds = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    # What comes with each message is a tuple, which is so by itself.
    tuples = [kind for kind in kinds if issubclass(kind, tuple)]
    values: list[Any] = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    assert values or tuples
    for kind in values:
        assert kind.__dataclass_params__.frozen
        assert "__slots__" in vars(kind)
    for kind in tuples:
        assert kind.__slots__ == ()  # type: ignore[attr-defined]


def test_channels_sort_by_choice_kind_and_index() -> None:
    text, reasoning = Channel(), Channel(0, ChannelKind.REASONING)
    calls = [Channel(0, ChannelKind.TOOL_CALL, index) for index in (0, 1, 10)]
    assert sorted([Channel(1), *reversed(calls), reasoning, text]) == [text, reasoning, *calls, Channel(1)]


def test_a_cursor_is_its_number_and_its_offsets() -> None:
    assert Cursor(3) == Cursor(3, ())
    assert Cursor(3) != Cursor(3, ((Channel(), 1),))


def test_what_is_not_set_asks_nothing_of_an_engine() -> None:
    own = Submission(
        model="m",
        limits=Limits(max_duration=1.0),
        run=RunOptions(request_id="a", labels={"k": "v"}, detached=True, priority=0),
        output=Output(token_ids=True, full_text=True),
        after=Cursor(),
        fingerprint=b"x",
    )
    assert list(engine_fields(own)) == []


def test_every_set_field_is_named_by_its_path_unless_its_value_asks_for_nothing() -> None:
    asked = Submission(
        messages=(Message(role=Role.USER, content="hi"),),
        sampling=Sampling(temperature=0.0, beam_search=BeamSearch(width=2, early_stopping=False)),
        stopping=Stopping(stop=("a",), ignore_eos=False),
        run=RunOptions(priority=-1),
        kv=KvOptions(bypass=False),
    )
    assert sorted(engine_fields(asked)) == [
        "messages.content",
        "messages.role=USER",
        "run.priority",
        "sampling.beam_search.width",
        "sampling.temperature",
        "stopping.stop",
    ]
