"""Requests as OpenAI bodies."""

from typing import Any

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Job, Prompt
from tokenwire.domain.request import (
    BeamSearch,
    Constraint,
    Limits,
    Logprobs,
    Message,
    Output,
    Role,
    RunOptions,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
    Tool,
    ToolCall,
    engine_fields,
)
from tokenwire.engines.openai.request import FIELDS, endpoint_and_body

ALWAYS: dict[str, Any] = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}


def _job(submission: Submission, prompt: Prompt | None = None) -> Job:
    return Job(run_id="r", model="m", submission=submission, prompt=prompt or Prompt(text=submission.prompt))


def _body(**fields: Any) -> dict[str, Any]:
    return endpoint_and_body(_job(Submission(prompt="hi", **fields)))[1]


def test_a_bare_prompt_is_a_completion_with_nothing_else_set() -> None:
    assert endpoint_and_body(_job(Submission(prompt="hi"))) == ("/v1/completions", ALWAYS | {"prompt": "hi"})


def test_ids_are_sent_as_they_are() -> None:
    for job in (_job(Submission(prompt_ids=(1, 2))), _job(Submission(prompt_ids=(1, 2)), Prompt(token_ids=(1, 2)))):
        assert endpoint_and_body(job) == ("/v1/completions", ALWAYS | {"prompt": [1, 2]})


def test_a_prompt_that_was_continued_goes_before_the_one_that_was_asked_for() -> None:
    assert endpoint_and_body(_job(Submission(prompt="hi"), Prompt(text="hi there")))[1]["prompt"] == "hi there"


def test_messages_are_a_chat() -> None:
    call = ToolCall(id="c", name="f", arguments="{}")
    messages = (
        Message(role=Role.SYSTEM, content="be brief"),
        Message(role=Role.USER, content="hi", name="ann"),
        Message(role=Role.ASSISTANT, content="", tool_calls=(call,)),
        Message(role=Role.TOOL, content="4", tool_call_id="c"),
    )
    path, body = endpoint_and_body(_job(Submission(messages=messages)))
    assert path == "/v1/chat/completions"
    function = {"name": "f", "arguments": "{}"}
    assert body == ALWAYS | {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi", "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": function}],
            },
            {"role": "tool", "content": "4", "tool_call_id": "c"},
        ]
    }


def test_sampling_and_stopping_are_sent_where_they_are_set() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        presence_penalty=0.0,
        frequency_penalty=-1.0,
        seed=0,
        n=2,
        logit_bias=((7, -100.0), (8, 1.5)),
    )
    body = _body(sampling=sampling, stopping=Stopping(max_tokens=5, stop=("a", "b")))
    assert body == ALWAYS | {
        "prompt": "hi",
        "temperature": 0.0,
        "top_p": 0.5,
        "presence_penalty": 0.0,
        "frequency_penalty": -1.0,
        "seed": 0,
        "n": 2,
        "logit_bias": {"7": -100.0, "8": 1.5},
        "max_tokens": 5,
        "stop": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(preset=SamplingPreset.DETERMINISTIC), {"temperature": 0.0}),
        (Sampling(preset=SamplingPreset.BALANCED), {"temperature": 0.7, "top_p": 0.95}),
        (Sampling(preset=SamplingPreset.CREATIVE), {"temperature": 1.0, "top_p": 0.98}),
        (Sampling(preset=SamplingPreset.PRECISE), {"temperature": 0.2, "top_p": 0.9}),
        (Sampling(preset=SamplingPreset.PRECISE, temperature=0.0), {"temperature": 0.0, "top_p": 0.9}),
        (Sampling(preset=SamplingPreset.DETERMINISTIC, top_p=0.3), {"temperature": 0.0, "top_p": 0.3}),
        (Sampling(top_p=0.3), {"top_p": 0.3}),
    ],
)
def test_a_preset_sets_what_is_not_set_itself(sampling: Sampling, expected: dict[str, float]) -> None:
    assert _body(sampling=sampling) == ALWAYS | {"prompt": "hi"} | expected


def test_four_stop_strings_are_the_most() -> None:
    assert _body(stopping=Stopping(stop=("a", "b", "c", "d")))["stop"] == ["a", "b", "c", "d"]
    with pytest.raises(InvalidRequestError) as caught:
        _body(stopping=Stopping(stop=("a", "b", "c", "d", "e")))
    assert [violation.field for violation in caught.value.violations] == ["stopping.stop"]


@pytest.mark.parametrize("submission", [Submission(), Submission(prompt="")])
def test_an_empty_prompt_does_not_reach_the_engine(submission: Submission) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        endpoint_and_body(_job(submission))
    assert [violation.field for violation in caught.value.violations] == ["prompt"]


def test_what_is_sent_is_what_the_table_says() -> None:
    everything = Submission(
        prompt="hi",
        sampling=Sampling(
            preset=SamplingPreset.PRECISE,
            temperature=1.0,
            top_p=1.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            seed=1,
            logit_bias=((1, 1.0),),
            n=1,
        ),
        stopping=Stopping(max_tokens=1, stop=("a",)),
        limits=Limits(max_duration=1.0),
        run=RunOptions(request_id="x"),
        output=Output(full_text=True, token_ids=True),
    )
    assert {*engine_fields(everything), "prompt_ids", "messages"} == set(FIELDS)


@pytest.mark.parametrize(
    "submission",
    [
        Submission(sampling=Sampling(top_k=1)),
        Submission(sampling=Sampling(min_p=0.1)),
        Submission(sampling=Sampling(repetition_penalty=1.1)),
        Submission(sampling=Sampling(beam_search=BeamSearch(width=2))),
        Submission(stopping=Stopping(stop_token_ids=(1,))),
        Submission(stopping=Stopping(min_tokens=1)),
        Submission(stopping=Stopping(ignore_eos=True)),
        Submission(stopping=Stopping(include_stop=True)),
        Submission(constraint=Constraint(regex="a")),
        Submission(output=Output(logprobs=Logprobs(top_n=1))),
        Submission(output=Output(echo=True)),
        Submission(tools=(Tool(name="f"),)),
        Submission(run=RunOptions(priority=1)),
    ],
)
def test_what_is_not_openais_is_not_in_the_table(submission: Submission) -> None:
    assert not set(engine_fields(submission)) <= set(FIELDS)
