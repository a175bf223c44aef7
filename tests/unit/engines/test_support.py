"""The one table: every field of a request has a row, and nothing that it refuses is dropped in silence."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tokenwire.domain.request import (
    BeamSearch,
    Constraint,
    KvOptions,
    Logprobs,
    Message,
    Output,
    ReasoningEffort,
    Role,
    RunOptions,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
    Tool,
    ToolCall,
    ToolMode,
    engine_fields,
)
from tokenwire.engines.support import KINDS, TABLE, Support, column
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest

ROWS = {row.field for row in TABLE}


def leaves(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    for field in message.fields:
        path = f"{prefix}{field.name}"
        inner = field.message_type
        if inner is None or _is_value(inner, field):
            yield path, field
        else:
            yield from leaves(inner, f"{path}.")


def _is_value(inner: Descriptor, field: FieldDescriptor) -> bool:
    if inner.GetOptions().map_entry or inner.full_name.startswith("google.") or not inner.fields:
        return True
    # A list among alternatives, such as `constraint.choice`.
    return field.containing_oneof is not None and len(inner.fields) == 1


LEAVES = dict([*leaves(GenerateRequest.DESCRIPTOR), *leaves(ChatRequest.DESCRIPTOR)])


def rows_of(path: str) -> set[str]:
    parts = path.split(".")
    above = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return {row for row in ROWS if row.partition("=")[0] in above}


@pytest.mark.parametrize("path", LEAVES)
def test_every_field_of_a_request_has_a_row(path: str) -> None:
    found = rows_of(path)
    assert found, f"{path} has no row in engines/support.py"
    values = {row.partition("=")[2] for row in found}
    if values != {""}:
        enum = LEAVES[path].enum_type
        assert enum is not None
        prefixed = [value.name for value in enum.values if value.number]
        known = {name for name in prefixed if any(name.endswith(f"_{value}") for value in values)}
        assert known == set(prefixed), f"{path} has values without a row"
        assert len(values) == len(prefixed)
    else:
        assert len(found) == 1, f"{path} has several rows: {found}"


def test_every_row_is_a_field_of_a_request() -> None:
    covered = {row for path in LEAVES for row in rows_of(path)}
    assert covered == ROWS
    assert len(TABLE) == len(ROWS)


def test_every_row_has_a_cell_for_each_kind_or_none() -> None:
    assert {len(row.cells) for row in TABLE} == {0, len(KINDS)}
    assert all(row.note for row in TABLE if not row.cells)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_holds_what_is_not_refused(kind: str) -> None:
    taken = column(kind)
    assert all(cell.support is not Support.REFUSED for cell in taken.values())
    assert "sampling.temperature" in taken
    assert "kv.lease" not in taken


# Every field that an engine can be asked for, with a value that asks for something.
FULL = Submission(
    prompt="a",
    prompt_ids=(1,),
    messages=tuple(
        Message(
            role=role,
            content="a",
            tool_calls=(ToolCall(id="1", name="f", arguments="{}"),),
            tool_call_id="1",
            name="n",
        )
        for role in Role
    ),
    tools=(Tool(name="f", description="d", parameters_schema="{}", strict=True),),
    parallel_tool_calls=True,
    sampling=Sampling(
        preset=SamplingPreset.BALANCED,
        temperature=0.0,
        top_p=0.5,
        top_k=1,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        seed=0,
        logit_bias=((1, 1.0),),
        n=2,
        beam_search=BeamSearch(width=2, length_penalty=1.0, early_stopping=True),
    ),
    stopping=Stopping(
        max_tokens=1,
        min_tokens=1,
        stop=("a",),
        stop_token_ids=(1,),
        ignore_eos=True,
        skip_special_tokens=False,
        include_stop=True,
    ),
    constraint=Constraint(
        json_schema="{}", regex="a", grammar="a", choice=("a",), json_object=True, structural_tag="{}"
    ),
    output=Output(
        logprobs=Logprobs(top_n=0, token_ids=(1,), all=True),
        prompt_logprobs=Logprobs(top_n=0, token_ids=(1,), all=True),
        token_ids=True,
        echo=True,
        full_text=True,
    ),
    run=RunOptions(request_id="a", priority=1),
    kv=KvOptions(lease="a", cache_salt="a", bypass=True),
)
ASKED = [
    *(replace(FULL, tool_choice=choice) for choice in (*ToolMode, "f")),
    *(replace(FULL, reasoning=effort) for effort in ReasoningEffort),
]


def test_what_a_request_asks_of_an_engine_are_the_rows_with_cells() -> None:
    wanted = {field for submission in ASKED for field in engine_fields(submission)}
    # A `system` is a message by then.
    assert wanted == {row.field for row in TABLE if row.cells} - {"system"}


def test_no_field_of_a_request_is_unset_above() -> None:
    def unset(value: Any, path: str) -> Iterator[str]:
        for spec in fields(value):
            inner = getattr(value, spec.name)
            if is_dataclass(inner):
                yield from unset(inner, f"{path}{spec.name}.")
            elif inner is None or inner in ((), ""):
                yield f"{path}{spec.name}"

    own = ("model", "after", "fingerprint", "limits", "run.")
    left = {path for path in unset(FULL, "") if not path.startswith(own)}
    assert left == {"tool_choice", "reasoning"}


NEUTRAL = Submission(
    prompt="a",
    sampling=Sampling(top_k=0, min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, n=1),
    stopping=Stopping(min_tokens=0, ignore_eos=False, skip_special_tokens=True, include_stop=False),
    output=Output(echo=False),
    run=RunOptions(priority=0),
    kv=KvOptions(bypass=False),
)


def test_a_value_that_asks_for_nothing_needs_no_engine_that_has_it() -> None:
    assert set(engine_fields(NEUTRAL)) == {"prompt"}
