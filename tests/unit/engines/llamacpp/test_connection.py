"""The small endpoints of a child, and what they tell of its model."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tokenwire.domain.errors import EngineError, InvalidRequestError
from tokenwire.domain.request import Message, ReasoningEffort, Role, Submission, Tool
from tokenwire.engines.llamacpp.connection import Connection
from tokenwire.engines.llamacpp.grammar import Grammar
from tokenwire.engines.llamacpp.template import ChatTemplate
from tokenwire.engines.llamacpp.tokenizer import LlamaCppTokenizer
from unit.engines import captures
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, Script, ScriptedServer, chunk, reply, serving

GRAMMAR = Grammar(field="constraint.regex", body="body: /a/\n")
END = {"tokens": [{"id": 2, "piece": "<|im_end|>"}]}


@asynccontextmanager
async def connected(script: Script) -> AsyncGenerator[tuple[Connection, ScriptedServer], None]:
    async with serving(script) as server:
        connection = Connection(server.url, api_key="", connect_timeout=5.0, reply_timeout=5.0, wall=time.time)
        try:
            yield connection, server
        finally:
            await connection.close()


def child(**other: object) -> Script:
    """Returns a child as the captures show it; `other` replaces answers by path, a number is a refusal."""
    answers: dict[str, object] = {
        "v1_models": json.loads(captures.body("llama-cpp", "19-models.txt")),
        "props": json.loads(captures.body("llama-cpp", "18-props.txt")),
        "tokenize": END,
        "apply_template": json.loads(captures.body("llama-cpp", "20-apply-template.txt")),
        **other,
    }

    async def script(exchange: Exchange) -> None:
        answer = answers[exchange.path.strip("/").replace("/", "_").replace("-", "_")]
        if isinstance(answer, int):
            await exchange.write(reply(answer, b'{"error":{"code":400,"message":"no","type":"invalid_request_error"}}'))
        else:
            await exchange.write(reply(200, json.dumps(answer).encode()))

    return script


def written(*texts: str) -> Script:
    """Returns a child that answers with these texts, one after the other."""
    rest = list(texts)

    async def script(exchange: Exchange) -> None:
        event = json.dumps({"stop": False, "content": rest.pop(0)}).encode()
        await exchange.write(STREAM_HEAD + chunk(b"data: " + event + b"\n\n") + LAST_CHUNK)

    return script


@pytest.mark.asyncio
async def test_vocabulary_end_and_template_are_known_once_it_is_open() -> None:
    async with connected(child()) as (connection, _):
        await connection.open()
        assert (connection.vocabulary, connection.end_id) == (49_152, 2)
        assert connection.template == ChatTemplate()


@pytest.mark.asyncio
async def test_what_the_template_renders_and_mentions_is_what_it_can_do() -> None:
    call = '<tool_call>{"name": "tokenwire_trial", "arguments": {}}</tool_call>'
    props = {"chat_template": "<think> enable_thinking", "eos_token": ""}
    rendered = {"prompt": f"{call} {call} tokenwire_result"}
    async with connected(child(props=props, apply_template=rendered)) as (connection, server):
        await connection.open()
        assert connection.template == ChatTemplate(tools=True, thinks=True, switches=True)
        assert connection.end_id is None
        trial = server.requests[-1].json
        assert [message["role"] for message in trial["messages"]] == ["user", "assistant", "tool"]
        assert trial["tools"][0]["function"]["name"] == "tokenwire_trial"


@pytest.mark.asyncio
async def test_a_template_that_refuses_tools_does_not_know_them() -> None:
    async with connected(child(apply_template=400)) as (connection, _):
        await connection.open()
        assert not connection.template.tools


@pytest.mark.asyncio
async def test_a_text_of_the_end_that_is_several_tokens_ends_nothing() -> None:
    two = {"tokens": [{"id": 5, "piece": "<"}, {"id": 6, "piece": [226, 151]}]}
    async with connected(child(tokenize=two)) as (connection, _):
        await connection.open()
        assert connection.end_id is None
        assert await connection.pieces("x", add_special=False) == ((5, b"<"), (6, b"\xe2\x97"))
        assert [token.text for token in await connection.tokenize("x")] == ["<", ""]


@pytest.mark.asyncio
async def test_tokens_have_the_bytes_that_are_theirs() -> None:
    tokens = json.loads(captures.body("llama-cpp", "14-tokenize.txt"))
    async with connected(child(tokenize=tokens)) as (connection, server):
        pieces = await connection.pieces("Hello wörld", add_special=False)
        assert b"".join(piece for _, piece in pieces) == "Hello wörld".encode()
        assert (server.requests[0].json["add_special"], server.requests[0].json["parse_special"]) == (False, True)


@pytest.mark.asyncio
async def test_a_grammar_that_binds_is_tried_once() -> None:
    async with connected(written("#~#a")) as (connection, server):
        await connection.check_grammar(GRAMMAR)
        await connection.check_grammar(GRAMMAR)
        assert [request.json["grammar"] for request in server.requests] == [GRAMMAR.trial()]


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", ["", "#~", "Once upon"])
async def test_a_grammar_that_does_not_bind_is_refused_by_its_field_each_time(answer: str) -> None:
    async with connected(written(answer, answer)) as (connection, server):
        for _ in range(2):
            with pytest.raises(InvalidRequestError) as caught:
                await connection.check_grammar(GRAMMAR)
            assert caught.value.violations[0].field == "constraint.regex"
        assert len(server.requests) == 2


@pytest.mark.asyncio
async def test_of_two_fields_the_one_that_does_not_bind_is_named() -> None:
    both = Grammar(field="tools.parameters_schema", body="body: answer\n", inner=GRAMMAR)
    for answers, field in ((["free"], "constraint.regex"), (["#~#a", "free"], "tools.parameters_schema")):
        async with connected(written(*answers)) as (connection, _):
            with pytest.raises(InvalidRequestError) as caught:
                await connection.check_grammar(both)
            assert caught.value.violations[0].field == field


@pytest.mark.asyncio
async def test_a_trial_that_fails_is_no_refusal_of_the_grammar() -> None:
    async with connected(child(completion=503)) as (connection, _):
        with pytest.raises(EngineError):
            await connection.check_grammar(GRAMMAR)


@pytest.mark.asyncio
async def test_tools_that_bind_nothing_are_refused_while_the_chat_is_rendered() -> None:
    async def script(exchange: Exchange) -> None:
        await (written("free") if exchange.path == "/completion" else child())(exchange)

    chat = Submission(messages=(Message(role=Role.USER, content="Hi"),), tools=(Tool(name="a"),))
    async with connected(script) as (connection, _):
        with pytest.raises(InvalidRequestError) as caught:
            await LlamaCppTokenizer(lambda: connection).prompt(chat)
        assert caught.value.violations[0].field == "tools.parameters_schema"


@pytest.mark.asyncio
async def test_an_effort_reaches_the_template() -> None:
    chat = Submission(messages=(Message(role=Role.USER, content="Hi"),), reasoning=ReasoningEffort.NONE)
    async with connected(child()) as (connection, server):
        connection.template = ChatTemplate(thinks=True, switches=True)
        prompt = await LlamaCppTokenizer(lambda: connection).prompt(chat)
        assert server.requests[0].json["chat_template_kwargs"] == {"enable_thinking": False}
        assert (prompt.text or "").endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
        assert (prompt.token_ids, prompt.tokens) == ((2,), 1)
