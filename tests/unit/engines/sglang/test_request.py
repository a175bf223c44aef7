"""Every field of the request that SGLang takes reaches it, on both of its endpoints."""

from typing import Any

import msgspec
import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Job, Prompt
from tokenwire.domain.request import KvOptions, Logprobs, Output, RunOptions, Sampling, Submission
from tokenwire.engines.sglang.chat import chat_body, needs_chat, rendered_fields
from tokenwire.engines.sglang.request import generate_body
from tokenwire.engines.sglang.server import Server
from tokenwire.engines.support import column
from unit.engines.sglang.fields import CHAT, OUTPUTS, PLAIN, RENDERED, TAG, TOOLS, asking

SERVER = Server(tokenizes=True, vocabulary=100, tool_parser=True)
PROMPT = Prompt(token_ids=(1, 2), tokens=2)
TEXT = Submission(prompt="hi")
# These are of the prompt: the rendered ids, or a text.
PROMPTS = {"prompt", "prompt_ids", "system", "output.echo"}
NATIVE = asking(TEXT)
CHATS = {field: asked for field, asked in asking(CHAT).items() if field.removeprefix("output.") not in OUTPUTS}
CHATS["output.logprobs.top_n"] = asking(CHAT)["output.logprobs.top_n"]


def native(submission: Submission, prompt: Prompt = PROMPT, server: Server = SERVER) -> dict[str, Any]:
    job = Job(run_id="r", model="m", submission=submission, prompt=prompt)
    return plain(generate_body(job, server, "id", "salt"))


def chat(submission: Submission, server: Server = SERVER) -> dict[str, Any]:
    job = Job(run_id="r", model="m", submission=submission, prompt=PROMPT)
    return plain(chat_body(job, server, "id", "salt"))


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """Returns a body as it is on the wire."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    return decoded


def test_every_field_of_the_column_is_asked_for_here() -> None:
    assert {*NATIVE, *RENDERED, *PROMPTS} == set(column("sglang"))


def test_a_bare_request_says_nothing_but_its_prompt() -> None:
    assert native(TEXT) == {"input_ids": [1, 2], "rid": "id", "stream": True, "sampling_params": {}}
    assert chat(CHAT) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "reasoning_effort": "low",
        "rid": "id",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("field", NATIVE)
def test_a_field_changes_the_native_body(field: str) -> None:
    assert native(NATIVE[field]) != native(TEXT)


@pytest.mark.parametrize("field", CHATS)
def test_a_field_changes_the_body_of_a_chat(field: str) -> None:
    assert chat(CHATS[field]) != chat(CHAT)


@pytest.mark.parametrize("field", RENDERED)
def test_a_field_changes_what_is_rendered_and_the_body_of_a_chat(field: str) -> None:
    asked, without = RENDERED[field]
    assert plain(rendered_fields(asked)) != plain(rendered_fields(without))
    assert chat(asked) != chat(without)


SAMPLING_PARAMS: dict[str, dict[str, Any]] = {
    "sampling.preset": {"temperature": 0.7, "top_p": 0.95},
    "sampling.temperature": {"temperature": 0.0},
    "sampling.top_p": {"top_p": 0.5},
    "sampling.top_k": {"top_k": 3},
    "sampling.min_p": {"min_p": 0.25},
    "sampling.repetition_penalty": {"repetition_penalty": 1.5},
    "sampling.presence_penalty": {"presence_penalty": 0.5},
    "sampling.frequency_penalty": {"frequency_penalty": 0.75},
    "sampling.seed": {"sampling_seed": 7},
    "sampling.logit_bias": {"logit_bias": {"5": 1.5}},
    "sampling.n": {"n": 2},
    "stopping.max_tokens": {"max_new_tokens": 9},
    "stopping.min_tokens": {"min_new_tokens": 3},
    "stopping.stop": {"stop": ["a", "b"]},
    "stopping.stop_token_ids": {"stop_token_ids": [4, 5]},
    "stopping.ignore_eos": {"ignore_eos": True},
    "stopping.skip_special_tokens": {"skip_special_tokens": False},
    "stopping.include_stop": {"no_stop_trim": True},
    "constraint.json_schema": {"json_schema": '{"type":"object","maxProperties":18446744073709551616}'},
    "constraint.regex": {"regex": "a+"},
    "constraint.grammar": {"ebnf": 'root ::= "a"'},
    "constraint.choice": {"regex": "(a\\.b|c)"},
    "constraint.json_object": {"json_schema": '{"type":"object"}'},
    "constraint.structural_tag": {"structural_tag": TAG},
}
LOGPROBS: dict[str, Any] = {"return_logprob": True, "return_text_in_logprobs": True}
TOP_LEVEL: dict[str, dict[str, Any]] = {
    "output.logprobs.top_n": LOGPROBS | {"logprob_start_len": -1, "top_logprobs_num": 2},
    "output.logprobs.token_ids": LOGPROBS
    | {"logprob_start_len": -1, "top_logprobs_num": 0, "token_ids_logprob": [6, 5]},
    "output.prompt_logprobs.top_n": LOGPROBS | {"logprob_start_len": 0, "top_logprobs_num": 3},
    "output.prompt_logprobs.token_ids": LOGPROBS
    | {"logprob_start_len": 0, "top_logprobs_num": 0, "token_ids_logprob": [5, 7]},
    "run.priority": {"priority": 5},
    "kv.cache_salt": {"cache_salt": "s"},
    "kv.bypass": {"cache_salt": "salt"},
}
SCHEMA = {"name": "answer", "schema": {"type": "object", "maxProperties": 18446744073709551616}, "strict": True}
CHAT_FIELDS: dict[str, dict[str, Any]] = SAMPLING_PARAMS | {
    "sampling.seed": {"seed": 7},
    "stopping.max_tokens": {"max_tokens": 9},
    "stopping.min_tokens": {"min_tokens": 3},
    "constraint.json_schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "constraint.json_object": {"response_format": {"type": "json_object"}},
    "constraint.structural_tag": {"response_format": {"type": "structural_tag", "structures": [], "triggers": []}},
    "output.logprobs.top_n": {"logprobs": True, "top_logprobs": 2},
    "run.priority": {"priority": 5},
    "kv.cache_salt": {"cache_salt": "s"},
    "kv.bypass": {"cache_salt": "salt"},
}


@pytest.mark.parametrize("field", NATIVE)
def test_a_field_has_its_name_in_the_native_body(field: str) -> None:
    bare = native(TEXT)
    if field in SAMPLING_PARAMS:
        assert native(NATIVE[field]) == bare | {"sampling_params": SAMPLING_PARAMS[field]}
    else:
        assert native(NATIVE[field]) == bare | TOP_LEVEL[field]


@pytest.mark.parametrize("field", CHATS)
def test_a_field_has_its_name_in_the_body_of_a_chat(field: str) -> None:
    assert chat(CHATS[field]) == chat(CHAT) | CHAT_FIELDS[field]


def test_tools_are_strict_unless_the_request_says_otherwise() -> None:
    bare = RENDERED["tools.name"][0]
    (tool,) = chat(bare)["tools"]
    assert "strict" not in tool["function"]
    asked, _ = RENDERED["tools.strict"]
    assert chat(asked)["tools"][0]["function"]["strict"] is True


def test_a_call_without_text_has_an_empty_content_and_no_null() -> None:
    asked, _ = RENDERED["messages.tool_calls"]
    for body in (plain(rendered_fields(asked)), chat(asked)):
        assert [message["content"] for message in body["messages"]] == ["hi", ""]


def test_a_forced_tool_is_named() -> None:
    asked, _ = RENDERED["tool_choice.name"]
    assert chat(asked)["tool_choice"] == {"type": "function", "function": {"name": "f"}}


def test_all_tokens_are_minus_one_to_sglang() -> None:
    asked = Submission(prompt="hi", sampling=Sampling(top_k=0))
    assert native(asked)["sampling_params"] == {"top_k": -1}
    assert chat(Submission(messages=CHAT.messages, sampling=Sampling(top_k=0)))["top_k"] == -1


def test_prompt_and_answer_have_one_figure_which_is_the_larger() -> None:
    output = Output(logprobs=Logprobs(top_n=1, token_ids=(5, 6)), prompt_logprobs=Logprobs(top_n=4, token_ids=(7, 5)))
    body = native(Submission(prompt="hi", output=output))
    assert (body["logprob_start_len"], body["top_logprobs_num"]) == (0, 4)
    assert body["token_ids_logprob"] == [5, 6, 7]


@pytest.mark.parametrize(
    ("priorities", "asked", "sent"),
    [
        (1, None, 0),
        (1, -5, -5),
        (-1, 5, -5),
        (-1, None, 0),
        (0, None, None),
        (0, 0, None),
        (None, 5, 5),
        (None, 0, None),
    ],
)
def test_a_priority_is_sent_so_that_larger_ones_go_first_and_none_is_zero(
    priorities: int | None, asked: int | None, sent: int | None
) -> None:
    server = Server(priorities=priorities)
    submission = Submission(prompt="hi", messages=(), run=RunOptions(priority=asked))
    assert native(submission, server=server).get("priority") == sent
    assert chat(Submission(messages=CHAT.messages, run=submission.run), server).get("priority") == sent


def test_a_request_without_cached_prefixes_has_a_salt_of_its_own_whatever_else_it_says() -> None:
    asked = Submission(prompt="hi", kv=KvOptions(cache_salt="s", bypass=True))
    assert native(asked)["cache_salt"] == "salt"


def test_a_prompt_is_sent_as_ids_where_they_are_known_and_never_empty() -> None:
    assert native(TEXT, Prompt(text="hi"))["text"] == "hi"
    assert native(Submission(prompt_ids=(7,)), Prompt())["input_ids"] == [7]
    for submission, prompt in ((Submission(prompt=""), Prompt()), (TEXT, Prompt(text="")), (Submission(), Prompt())):
        with pytest.raises(InvalidRequestError) as caught:
            native(submission, prompt)
        assert caught.value.violations[0].field == "prompt"


@pytest.mark.parametrize(
    ("submission", "server", "needed"),
    [
        (TEXT, SERVER, False),
        (Submission(prompt_ids=(1,)), Server(reasoning_parser=True), False),
        (PLAIN, SERVER, False),
        (TOOLS, SERVER, True),
        (RENDERED["tool_choice.mode=NONE"][0], SERVER, False),
        (RENDERED["tool_choice.mode=REQUIRED"][0], SERVER, True),
        (RENDERED["messages.tool_calls"][0], SERVER, False),
        (CHAT, SERVER, True),
        (PLAIN, Server(tokenizes=True, reasoning_parser=True), True),
        (PLAIN, Server(tokenizes=True, chats_plainly=False), True),
        (PLAIN, Server(tokenizes=False), True),
    ],
)
def test_the_chat_endpoint_is_for_what_only_it_can_do(submission: Submission, server: Server, needed: bool) -> None:
    assert needs_chat(submission, server) is needed
