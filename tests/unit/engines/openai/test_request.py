"""Requests as OpenAI bodies."""

from dataclasses import replace
from typing import Any

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Job, Prompt
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
from tokenwire.engines.openai.request import endpoint_and_body, vet
from tokenwire.engines.support import column

ALWAYS: dict[str, Any] = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
PROMPT = Submission(prompt="hi")
CHAT = Submission(messages=(Message(role=Role.USER, content="hi"),))
CALL = ToolCall(id="c", name="f", arguments="{}")
WITH_TOOL = replace(CHAT, tools=(Tool(name="f"),))
SCHEMA = Constraint(json_schema='{"type":"object"}')


def _job(submission: Submission, prompt: Prompt | None = None) -> Job:
    return Job(run_id="r", model="m", submission=submission, prompt=prompt or Prompt(text=submission.prompt))


def _body(submission: Submission) -> dict[str, Any]:
    return endpoint_and_body(_job(submission))[1]


def test_a_bare_prompt_is_a_completion_with_nothing_else_set() -> None:
    assert endpoint_and_body(_job(PROMPT)) == ("/v1/completions", ALWAYS | {"prompt": "hi"})


def test_ids_are_sent_as_they_are() -> None:
    for job in (_job(Submission(prompt_ids=(1, 2))), _job(Submission(prompt_ids=(1, 2)), Prompt(token_ids=(1, 2)))):
        assert endpoint_and_body(job) == ("/v1/completions", ALWAYS | {"prompt": [1, 2]})


def test_a_prompt_whose_tokens_are_known_is_sent_as_tokens() -> None:
    assert endpoint_and_body(_job(PROMPT, Prompt(text="hi", token_ids=(7,))))[1]["prompt"] == [7]


def test_a_prompt_that_was_continued_goes_before_the_one_that_was_asked_for() -> None:
    assert endpoint_and_body(_job(PROMPT, Prompt(text="hi there")))[1]["prompt"] == "hi there"


def test_messages_are_a_chat() -> None:
    messages = (
        Message(role=Role.SYSTEM, content="be brief"),
        Message(role=Role.USER, content="hi", name="ann"),
        Message(role=Role.ASSISTANT, content="", tool_calls=(CALL,)),
        Message(role=Role.ASSISTANT, content="so", tool_calls=(CALL,)),
        Message(role=Role.TOOL, content="4", tool_call_id="c"),
    )
    path, body = endpoint_and_body(_job(Submission(messages=messages)))
    assert path == "/v1/chat/completions"
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert body == ALWAYS | {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi", "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "assistant", "content": "so", "tool_calls": calls},
            {"role": "tool", "content": "4", "tool_call_id": "c"},
        ]
    }


def _sampled(**values: Any) -> Submission:
    return replace(PROMPT, sampling=Sampling(**values))


# A request, and what its field adds to the body; every row of the table's column is here.
FIELDS: list[tuple[str, Submission, dict[str, Any]]] = [
    ("sampling.preset", _sampled(preset=SamplingPreset.PRECISE), {"temperature": 0.2, "top_p": 0.9}),
    ("sampling.temperature", _sampled(temperature=0.0), {"temperature": 0.0}),
    ("sampling.top_p", _sampled(top_p=0.5), {"top_p": 0.5}),
    ("sampling.presence_penalty", _sampled(presence_penalty=-1.0), {"presence_penalty": -1.0}),
    ("sampling.frequency_penalty", _sampled(frequency_penalty=1.0), {"frequency_penalty": 1.0}),
    ("sampling.seed", _sampled(seed=0), {"seed": 0}),
    ("sampling.n", _sampled(n=2), {"n": 2}),
    ("sampling.logit_bias", _sampled(logit_bias=((7, -100.0), (8, 1.5))), {"logit_bias": {"7": -100.0, "8": 1.5}}),
    ("stopping.max_tokens", replace(PROMPT, stopping=Stopping(max_tokens=5)), {"max_tokens": 5}),
    ("stopping.stop", replace(PROMPT, stopping=Stopping(stop=("a", "b"))), {"stop": ["a", "b"]}),
    *(
        (f"reasoning.effort={effort.name}", replace(CHAT, reasoning=effort), {"reasoning_effort": effort.name.lower()})
        for effort in ReasoningEffort
    ),
    *(
        (f"tool_choice.mode={mode.name}", replace(WITH_TOOL, tool_choice=mode), {"tool_choice": mode.name.lower()})
        for mode in ToolMode
    ),
    (
        "tool_choice.name",
        replace(WITH_TOOL, tool_choice="f"),
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    ("parallel_tool_calls", replace(WITH_TOOL, parallel_tool_calls=False), {"parallel_tool_calls": False}),
    (
        "constraint.json_schema",
        replace(CHAT, constraint=SCHEMA),
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
            }
        },
    ),
    (
        "constraint.json_object",
        replace(CHAT, constraint=Constraint(json_object=True)),
        {"response_format": {"type": "json_object"}},
    ),
    ("output.logprobs.top_n", replace(PROMPT, output=Output(logprobs=Logprobs(top_n=3))), {"logprobs": 3}),
    ("output.logprobs.top_n", replace(PROMPT, output=Output(logprobs=Logprobs(top_n=0))), {"logprobs": 1}),
    (
        "output.logprobs.top_n",
        replace(CHAT, output=Output(logprobs=Logprobs(top_n=3))),
        {"logprobs": True, "top_logprobs": 3},
    ),
    (
        "output.logprobs.top_n",
        replace(CHAT, output=Output(logprobs=Logprobs(top_n=0))),
        {"logprobs": True, "top_logprobs": 1},
    ),
]
# Rows that other tests of this folder hold, and echo, which tokenwire writes.
ELSEWHERE = {"prompt", "prompt_ids", "system", "output.echo"}


@pytest.mark.parametrize(("field", "submission", "added"), FIELDS)
def test_a_field_reaches_the_server(field: str, submission: Submission, added: dict[str, Any]) -> None:
    assert field in set(engine_fields(submission))
    vet(submission)
    base = CHAT if submission.messages else PROMPT
    bare = _body(WITH_TOOL if submission.tools else base)
    assert _body(submission) == bare | added
    assert _body(submission) != bare


def test_every_field_that_the_table_names_is_tested() -> None:
    tested = {field for field, _, _ in FIELDS} | ELSEWHERE
    rows = {row for row in column("openai") if not row.startswith(("messages.", "tools."))}
    assert rows == tested


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(preset=SamplingPreset.DETERMINISTIC), {"temperature": 0.0}),
        (Sampling(preset=SamplingPreset.BALANCED), {"temperature": 0.7, "top_p": 0.95}),
        (Sampling(preset=SamplingPreset.CREATIVE), {"temperature": 1.0, "top_p": 0.98}),
        (Sampling(preset=SamplingPreset.PRECISE, temperature=0.0), {"temperature": 0.0, "top_p": 0.9}),
        (Sampling(preset=SamplingPreset.DETERMINISTIC, top_p=0.3), {"temperature": 0.0, "top_p": 0.3}),
    ],
)
def test_a_preset_sets_what_is_not_set_itself(sampling: Sampling, expected: dict[str, float]) -> None:
    assert _body(replace(PROMPT, sampling=sampling)) == ALWAYS | {"prompt": "hi"} | expected


@pytest.mark.parametrize("submission", [Submission(), Submission(prompt="")])
def test_an_empty_prompt_does_not_reach_the_engine(submission: Submission) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        endpoint_and_body(_job(submission))
    assert [violation.field for violation in caught.value.violations] == ["prompt"]


@pytest.mark.parametrize(
    ("submission", "field"),
    [
        (replace(PROMPT, stopping=Stopping(stop=tuple("abcde"))), "stopping.stop"),
        (replace(CHAT, constraint=Constraint(json_schema="{")), "constraint.json_schema"),
        (replace(CHAT, constraint=Constraint(json_schema="[]")), "constraint.json_schema"),
        # OpenAI's completions have no response_format: some servers refuse it, others pass it over.
        (replace(PROMPT, constraint=SCHEMA), "constraint.json_schema"),
        (replace(PROMPT, constraint=Constraint(json_object=True)), "constraint.json_object"),
        (replace(CHAT, output=Output(echo=True)), "output.echo"),
        (Submission(prompt_ids=(1,), output=Output(echo=True)), "output.echo"),
        (replace(CHAT, tools=(Tool(name="f", parameters_schema="x"),)), "tools.parameters_schema"),
    ],
)
def test_what_the_server_would_not_do_is_refused_by_name(submission: Submission, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        vet(submission)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_four_stop_strings_are_taken_and_an_echo_of_a_prompt() -> None:
    vet(replace(PROMPT, stopping=Stopping(stop=("a", "b", "c", "d")), output=Output(echo=True)))
