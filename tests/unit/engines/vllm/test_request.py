"""Requests as bodies for vLLM, field by field."""

from dataclasses import replace
from typing import Any

import pytest

from tokenwire.domain.generation import Job, Prompt
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
    ToolMode,
    engine_fields,
)
from tokenwire.engines.support import column
from tokenwire.engines.vllm.request import endpoint_and_body, is_whole
from tokenwire.engines.vllm.server import Server
from tokenwire.engines.vllm.vetting import vet

ALWAYS: dict[str, Any] = {"model": "m", "request_id": "id", "return_token_ids": True}
STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
PROMPT = Submission(prompt="hi")
CHAT = Submission(messages=(Message(role=Role.USER, content="hi"),))
WITH_TOOL = replace(CHAT, tools=(Tool(name="f"),))
PYTHON = Server()
BY_ID = {"return_tokens_as_token_ids": True}


def _sent(submission: Submission, prompt: Prompt | None = None, server: Server = PYTHON) -> tuple[str, dict[str, Any]]:
    job = Job(run_id="r", model="m", submission=submission, prompt=prompt or Prompt(text=submission.prompt))
    return endpoint_and_body(job, server, request_id="id", own_salt="own")


def _sampled(**values: Any) -> Submission:
    return replace(PROMPT, sampling=Sampling(**values))


def _stopped(**values: Any) -> Submission:
    return replace(PROMPT, stopping=Stopping(**values))


def _constrained(**values: Any) -> Submission:
    return replace(PROMPT, constraint=Constraint(**values))


def _told(base: Submission, **values: Any) -> Submission:
    return replace(base, output=Output(logprobs=Logprobs(**values)))


def _told_of_prompt(**values: Any) -> Submission:
    return replace(PROMPT, output=Output(prompt_logprobs=Logprobs(**values)))


# A request, and what its field adds to the body; every row of the table's column is here.
FIELDS: list[tuple[str, Submission, dict[str, Any]]] = [
    *(
        (f"tool_choice.mode={mode.name}", replace(WITH_TOOL, tool_choice=mode), {"tool_choice": mode.name.lower()})
        for mode in ToolMode
    ),
    (
        "tool_choice.name",
        replace(WITH_TOOL, tool_choice="f"),
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    ("parallel_tool_calls", replace(WITH_TOOL, parallel_tool_calls=True), {"parallel_tool_calls": True}),
    *(
        (f"reasoning.effort={effort.name}", replace(CHAT, reasoning=effort), {"reasoning_effort": effort.name.lower()})
        for effort in ReasoningEffort
    ),
    ("sampling.preset", _sampled(preset=SamplingPreset.BALANCED), {"temperature": 0.7, "top_p": 0.95}),
    ("sampling.temperature", _sampled(temperature=0.0), {"temperature": 0.0}),
    ("sampling.top_p", _sampled(top_p=0.5), {"top_p": 0.5}),
    ("sampling.top_k", _sampled(top_k=7), {"top_k": 7}),
    ("sampling.min_p", _sampled(min_p=0.1), {"min_p": 0.1}),
    ("sampling.repetition_penalty", _sampled(repetition_penalty=1.5), {"repetition_penalty": 1.5}),
    ("sampling.presence_penalty", _sampled(presence_penalty=-1.0), {"presence_penalty": -1.0}),
    ("sampling.frequency_penalty", _sampled(frequency_penalty=1.0), {"frequency_penalty": 1.0}),
    ("sampling.seed", _sampled(seed=0), {"seed": 0}),
    ("sampling.n", _sampled(n=2), {"n": 2}),
    ("sampling.logit_bias", _sampled(logit_bias=((7, -100.0),)), {"logit_bias": {"7": -100.0}}),
    ("sampling.beam_search.width", _sampled(beam_search=BeamSearch(width=3)), {"use_beam_search": True, "n": 3}),
    (
        "sampling.beam_search.length_penalty",
        _sampled(n=2, beam_search=BeamSearch(width=3, length_penalty=0.5)),
        {"use_beam_search": True, "n": 3, "length_penalty": 0.5},
    ),
    ("stopping.max_tokens", _stopped(max_tokens=5), {"max_tokens": 5}),
    ("stopping.min_tokens", _stopped(min_tokens=5), {"min_tokens": 5}),
    ("stopping.stop", _stopped(stop=("a", "b")), {"stop": ["a", "b"]}),
    ("stopping.stop_token_ids", _stopped(stop_token_ids=(3, 4)), {"stop_token_ids": [3, 4]}),
    ("stopping.ignore_eos", _stopped(ignore_eos=True), {"ignore_eos": True}),
    ("stopping.skip_special_tokens", _stopped(skip_special_tokens=False), {"skip_special_tokens": False}),
    ("stopping.include_stop", _stopped(include_stop=True), {"include_stop_str_in_output": True}),
    ("constraint.json_schema", _constrained(json_schema='{"a":1}'), {"structured_outputs": {"json": {"a": 1}}}),
    ("constraint.regex", _constrained(regex="a+"), {"structured_outputs": {"regex": "a+"}}),
    ("constraint.grammar", _constrained(grammar="root ::="), {"structured_outputs": {"grammar": "root ::="}}),
    ("constraint.choice", _constrained(choice=("a", "b")), {"structured_outputs": {"choice": ["a", "b"]}}),
    ("constraint.json_object", _constrained(json_object=True), {"structured_outputs": {"json_object": True}}),
    ("constraint.structural_tag", _constrained(structural_tag="{}"), {"structured_outputs": {"structural_tag": "{}"}}),
    ("output.logprobs.top_n", _told(PROMPT, top_n=0), BY_ID | {"logprobs": 0}),
    ("output.logprobs.top_n", _told(PROMPT, top_n=5), BY_ID | {"logprobs": 5}),
    ("output.logprobs.top_n", _told(CHAT, top_n=0), BY_ID | {"logprobs": True, "top_logprobs": 0}),
    # One more, as the chosen token takes a place; but not more than servers take.
    ("output.logprobs.top_n", _told(CHAT, top_n=5), BY_ID | {"logprobs": True, "top_logprobs": 6}),
    ("output.logprobs.top_n", _told(CHAT, top_n=20), BY_ID | {"logprobs": True, "top_logprobs": 20}),
    (
        "output.logprobs.token_ids",
        _told(PROMPT, token_ids=(3, 4)),
        BY_ID | {"logprobs": 0, "logprob_token_ids": [3, 4]},
    ),
    (
        "output.logprobs.token_ids",
        _told(CHAT, token_ids=(3,), top_n=0),
        BY_ID | {"logprobs": True, "top_logprobs": 0, "logprob_token_ids": [3]},
    ),
    ("output.logprobs.all", _told(PROMPT, all=True), BY_ID | {"logprobs": -1}),
    ("output.logprobs.all", _told(CHAT, all=True, token_ids=(3,)), BY_ID | {"logprobs": True, "top_logprobs": -1}),
    ("output.prompt_logprobs.top_n", _told_of_prompt(top_n=0), {"prompt_logprobs": 0}),
    ("output.prompt_logprobs.top_n", _told_of_prompt(top_n=5), {"prompt_logprobs": 5}),
    ("output.prompt_logprobs.all", _told_of_prompt(all=True), {"prompt_logprobs": -1}),
    ("run.priority", replace(PROMPT, run=RunOptions(priority=7)), {"priority": -7}),
    ("kv.cache_salt", replace(PROMPT, kv=KvOptions(cache_salt="s")), {"cache_salt": "s"}),
    ("kv.bypass", replace(PROMPT, kv=KvOptions(bypass=True)), {"cache_salt": "own"}),
    ("kv.bypass", replace(PROMPT, kv=KvOptions(bypass=True, cache_salt="s")), {"cache_salt": "own"}),
]
# Rows of what is sent by engines/openai, and echo, which tokenwire writes.
ELSEWHERE = {"prompt", "prompt_ids", "system", "output.echo"}


@pytest.mark.parametrize(("field", "submission", "added"), FIELDS)
def test_a_field_reaches_vllm(field: str, submission: Submission, added: dict[str, Any]) -> None:
    assert field in set(engine_fields(submission))
    vet(submission, PYTHON)
    bare = _sent(WITH_TOOL if submission.tools else CHAT if submission.messages else PROMPT)[1]
    if is_whole(submission):
        bare = {key: value for key, value in bare.items() if key not in STREAMED}
    assert _sent(submission)[1] == bare | added
    assert _sent(submission)[1] != bare


def test_every_field_that_the_table_names_is_tested() -> None:
    tested = {field for field, _, _ in FIELDS} | ELSEWHERE
    assert {row for row in column("vllm") if not row.startswith(("messages.", "tools."))} == tested


def test_a_bare_prompt_and_a_bare_chat_say_no_more_than_they_must() -> None:
    assert _sent(PROMPT) == ("/v1/completions", ALWAYS | STREAMED | {"prompt": "hi"})
    messages = [{"role": "user", "content": "hi"}]
    assert _sent(CHAT) == ("/v1/chat/completions", ALWAYS | STREAMED | {"messages": messages})


def test_a_prompt_whose_tokens_are_known_is_sent_as_tokens() -> None:
    assert _sent(PROMPT, Prompt(text="hi", token_ids=(4, 5)))[1]["prompt"] == [4, 5]
    assert _sent(Submission(prompt_ids=(6,)))[1]["prompt"] == [6]


def test_tools_are_strict() -> None:
    assert _sent(WITH_TOOL)[1]["tools"][0]["function"]["strict"] is True


def test_the_rust_front_end_is_told_of_a_choice_as_a_grammar() -> None:
    # With xgrammar, the engine has no choice of its own.
    choice = _constrained(choice=("a", 'say "\\d"\n'))
    sent = _sent(choice, server=Server(rust=True))[1]["structured_outputs"]
    assert sent == {"grammar": r'''root ::= "a" | "say \"\\d\"\n"'''}


@pytest.mark.parametrize(("tags", "strict"), [(True, True), (None, True), (False, None)])
def test_tools_are_not_strict_where_structural_tags_do_not_work(tags: bool | None, strict: bool | None) -> None:
    sent = _sent(WITH_TOOL, server=Server(rust=True, tags=tags))[1]
    assert sent["tools"][0]["function"].get("strict") is strict


def test_a_priority_of_nothing_is_not_sent() -> None:
    # A server without priorities would refuse it.
    assert "priority" not in _sent(replace(PROMPT, run=RunOptions(priority=0)))[1]


@pytest.mark.parametrize("salt", ["a/b", "a@b", "a\\b", "a\0b", "a" * 129])
def test_a_salt_that_vllm_does_not_take_is_sent_as_another_that_it_takes(salt: str) -> None:
    sent = [_sent(replace(PROMPT, kv=KvOptions(cache_salt=one)))[1]["cache_salt"] for one in (salt, salt, salt + "x")]
    assert sent[0] == sent[1] != sent[2]
    assert all(one.isalnum() and len(one) <= 128 for one in sent)
