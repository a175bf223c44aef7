"""Requests as bodies of Ollama's API."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import (
    Constraint,
    Logprobs,
    Message,
    Output,
    ReasoningEffort,
    Role,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
    Tool,
    ToolCall,
    ToolMode,
    engine_fields,
)
from tokenwire.engines.ollama.catalog import Model
from tokenwire.engines.ollama.request import path_and_body, vet, vet_for
from tokenwire.engines.support import column
from unit.engines.ollama.running import HI, job

MODEL = Model(name="tiny:latest")
ALWAYS: dict[str, Any] = {"model": "tiny", "stream": True, "truncate": False, "shift": False}
PROMPT = ALWAYS | {"options": {}, "prompt": "hi", "raw": True, "think": False}
CHAT = ALWAYS | {"options": {}, "messages": [{"role": "user", "content": "hi"}]}
TOOL = Tool(name="f")


def sent(submission: Submission, model: Model = MODEL) -> tuple[str, dict[str, Any]]:
    path, body = path_and_body(job(submission), model)
    return path, json.loads(msgspec.json.encode(body))


def options(model: Model = MODEL, **groups: Any) -> dict[str, Any]:
    _, body = sent(Submission(prompt="hi", **groups), model)
    found: dict[str, Any] = body.pop("options")
    assert body | {"options": {}} == PROMPT
    return found


def refused(submission: Submission) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        vet(submission)
    (violation,) = caught.value.violations
    return violation.field


def test_a_prompt_is_completed_as_it_is() -> None:
    assert sent(Submission(prompt="hi")) == ("/api/generate", PROMPT)


def test_messages_are_a_chat() -> None:
    assert sent(Submission(messages=HI)) == ("/api/chat", CHAT)


def test_nothing_empty_loads_a_model() -> None:
    with pytest.raises(InvalidRequestError):
        sent(Submission(prompt=""))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0.0), {"temperature": 0.0}),
        (Sampling(top_p=0.5), {"top_p": 0.5}),
        (Sampling(top_k=0), {"top_k": 0}),
        (Sampling(min_p=0.1), {"min_p": 0.1}),
        (Sampling(repetition_penalty=1.1), {"repeat_penalty": 1.1, "repeat_last_n": -1}),
        (Sampling(presence_penalty=-0.5), {"presence_penalty": -0.5, "repeat_last_n": -1}),
        (Sampling(frequency_penalty=0.5), {"frequency_penalty": 0.5, "repeat_last_n": -1}),
        (Sampling(seed=0), {"seed": 0}),
        (Sampling(preset=SamplingPreset.PRECISE), {"temperature": 0.2, "top_p": 0.9}),
        (Sampling(preset=SamplingPreset.PRECISE, top_p=0.5), {"temperature": 0.2, "top_p": 0.5}),
    ],
)
def test_sampling_is_sent_where_it_is_set(sampling: Sampling, expected: dict[str, Any]) -> None:
    assert options(sampling=sampling) == expected


def test_the_limit_and_the_stop_strings_are_options() -> None:
    assert options(stopping=Stopping(max_tokens=5, stop=("a", "b"))) == {"num_predict": 5, "stop": ["a", "b"]}


def test_stop_strings_of_a_request_do_not_replace_those_of_the_model() -> None:
    model = replace(MODEL, stops=("<end>", "a"))
    assert options(model, stopping=Stopping(stop=("a", "b"))) == {"stop": ["a", "b", "<end>"]}
    assert options(model) == {}


def test_the_window_that_is_announced_is_the_one_that_is_asked_for() -> None:
    assert options(replace(MODEL, window=2048)) == {"num_ctx": 2048}


def test_a_schema_is_sent_word_for_word() -> None:
    schema = ' {"type": "object", "properties": {"z": {"maximum": 1e3}, "a": {}}}\n'
    _, body = path_and_body(job(Submission(messages=HI, constraint=Constraint(json_schema=schema))), MODEL)
    assert schema.strip().encode() in msgspec.json.encode(body)


def test_any_json_object_is_the_json_format() -> None:
    assert sent(Submission(prompt="hi", constraint=Constraint(json_object=True)))[1] == PROMPT | {"format": "json"}


@pytest.mark.parametrize("schema", ["{", "[]", "true", '{"a": 1e999}', "[" * 100_000])
def test_a_schema_that_is_no_json_object_is_refused(schema: str) -> None:
    assert refused(Submission(messages=HI, constraint=Constraint(json_schema=schema))) == "constraint.json_schema"


def test_log_probabilities_are_asked_for_up_to_twenty() -> None:
    for top_n in (0, 20):
        submission = Submission(prompt="hi", output=Output(logprobs=Logprobs(top_n=top_n)))
        vet(submission)
        assert sent(submission)[1] == PROMPT | {"logprobs": True, "top_logprobs": top_n}
    more = Submission(prompt="hi", output=Output(logprobs=Logprobs(top_n=21)))
    assert refused(more) == "output.logprobs.top_n"


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        (ReasoningEffort.NONE, False),
        (ReasoningEffort.LOW, "low"),
        (ReasoningEffort.MEDIUM, "medium"),
        (ReasoningEffort.HIGH, "high"),
    ],
)
def test_effort_is_what_ollama_calls_think(effort: ReasoningEffort, think: bool | str) -> None:
    assert sent(Submission(messages=HI, reasoning=effort))[1] == CHAT | {"think": think}


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        (replace(MODEL, capabilities=frozenset({"completion"})), ReasoningEffort.LOW),
        (replace(MODEL, has_levels=False), ReasoningEffort.LOW),
        (replace(MODEL, always_reasons=True), ReasoningEffort.NONE),
    ],
)
def test_an_effort_that_a_model_does_not_have_is_refused_by_name(model: Model, effort: ReasoningEffort) -> None:
    vet_for(Submission(messages=HI, reasoning=effort), MODEL)
    with pytest.raises(InvalidRequestError, match=r"^reasoning\.effort: ") as caught:
        vet_for(Submission(messages=HI, reasoning=effort), model)
    assert caught.value.reason == "FEATURE_UNSUPPORTED"


def test_a_model_that_cannot_reason_may_be_told_not_to() -> None:
    model = replace(MODEL, capabilities=frozenset({"completion"}))
    vet_for(Submission(messages=HI, reasoning=ReasoningEffort.NONE), model)


def test_tools_that_a_model_cannot_call_are_refused_by_name() -> None:
    model = replace(MODEL, capabilities=frozenset({"completion"}))
    with pytest.raises(InvalidRequestError, match=r"^tools: "):
        vet_for(Submission(messages=HI, tools=(TOOL,)), model)
    vet_for(Submission(messages=HI, tools=(TOOL,), tool_choice=ToolMode.NONE), model)


def test_a_constraint_and_tools_at_once_are_refused() -> None:
    submission = Submission(messages=HI, tools=(TOOL,), constraint=Constraint(json_object=True))
    assert refused(submission) == "constraint"
    vet(replace(submission, tool_choice=ToolMode.NONE))


CALL = ToolCall(id="c", name="f", arguments="{}")
CALLED = (*HI, Message(role=Role.ASSISTANT, content="", tool_calls=(CALL,)))
ANSWERED = (*CALLED, Message(role=Role.TOOL, content="4"))
TOOLS = Submission(messages=HI, tools=(TOOL,))
RAW, TALK = Submission(prompt="hi"), Submission(messages=HI)
SAMPLED: dict[str, Any] = {
    "preset": SamplingPreset.BALANCED,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 1,
    "min_p": 0.5,
    "repetition_penalty": 1.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "seed": 0,
}
# For each field of the column a request, and the same one with the field set, or set to something else.
CHANGES: dict[str, tuple[Submission, Submission]] = {
    "prompt": (RAW, Submission(prompt="ho")),
    "system": (TALK, Submission(messages=(Message(role=Role.SYSTEM, content="s"), *HI))),
    "messages.role=SYSTEM": (TALK, Submission(messages=(replace(HI[0], role=Role.SYSTEM),))),
    "messages.role=USER": (Submission(messages=ANSWERED[1:]), Submission(messages=ANSWERED)),
    "messages.role=ASSISTANT": (TALK, Submission(messages=(replace(HI[0], role=Role.ASSISTANT),))),
    "messages.role=TOOL": (TALK, Submission(messages=(replace(HI[0], role=Role.TOOL),))),
    "messages.content": (TALK, Submission(messages=(replace(HI[0], content="ho"),))),
    "messages.tool_calls": (Submission(messages=(*HI, replace(CALLED[1], tool_calls=()))), Submission(messages=CALLED)),
    "messages.tool_call_id": (
        Submission(messages=ANSWERED),
        Submission(messages=(*CALLED, replace(ANSWERED[2], tool_call_id="c"))),
    ),
    "tools.name": (TALK, TOOLS),
    "tools.description": (TOOLS, replace(TOOLS, tools=(replace(TOOL, description="d"),))),
    "tools.parameters_schema": (TOOLS, replace(TOOLS, tools=(replace(TOOL, parameters_schema='{"required":["a"]}'),))),
    "tool_choice.mode=NONE": (TOOLS, replace(TOOLS, tool_choice=ToolMode.NONE)),
    **{
        f"reasoning.effort={effort.name}": (TALK, Submission(messages=HI, reasoning=effort))
        for effort in ReasoningEffort
    },
    **{
        f"sampling.{name}": (RAW, Submission(prompt="hi", sampling=replace(Sampling(), **{name: value})))
        for name, value in SAMPLED.items()
    },
    "stopping.max_tokens": (RAW, Submission(prompt="hi", stopping=Stopping(max_tokens=1))),
    "stopping.stop": (RAW, Submission(prompt="hi", stopping=Stopping(stop=("a",)))),
    "constraint.json_schema": (RAW, Submission(prompt="hi", constraint=Constraint(json_schema="{}"))),
    "constraint.json_object": (RAW, Submission(prompt="hi", constraint=Constraint(json_object=True))),
    "output.logprobs.top_n": (RAW, Submission(prompt="hi", output=Output(logprobs=Logprobs(top_n=1)))),
}
# What Ollama does anyway, and what the writer of the run does.
UNCHANGED = {"tool_choice.mode=AUTO", "output.echo"}


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_a_field_of_the_column_changes_the_body(field: str) -> None:
    without, with_it = CHANGES[field]
    assert field == "system" or field in set(engine_fields(with_it))
    assert sent(without) != sent(with_it)


def test_every_field_of_the_column_was_tried() -> None:
    assert CHANGES.keys() | UNCHANGED == column("ollama").keys()
