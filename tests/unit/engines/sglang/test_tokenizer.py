"""SGLang's endpoints as a tokenizer."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import ReasoningEffort, Submission, ToolMode
from tokenwire.engines.engine import Token
from tokenwire.engines.sglang.tokenizer import SglangTokenizer
from tokenwire.engines.upstream import Upstream
from unit.engines.scripted_http import Exchange, Script, ScriptedServer, reply, serving
from unit.engines.sglang.fields import TOOL, USER

TEXTS = {504: "The", 3575: " capital", 1: "<|im_start|>", 8083: "�"}


async def _answer(exchange: Exchange) -> None:
    if exchange.path == "/v1/tokenize":
        await exchange.write(reply(200, b'{"tokens":[504,3575,8083,504],"count":4,"max_model_len":4096}'))
        return
    tokens = exchange.json["tokens"]
    assert exchange.json["skip_special_tokens"] is False
    if isinstance(tokens[0], list):
        told: object = ["".join(TEXTS[one] for one in ids) for ids in tokens]
    else:
        told = "".join(TEXTS[one] for one in tokens)
    await exchange.write(reply(200, json.dumps({"text": told}).encode()))


@asynccontextmanager
async def tokenizing(script: Script = _answer) -> AsyncGenerator[tuple[SglangTokenizer, ScriptedServer], None]:
    async with serving(script) as server:
        upstream = Upstream(server.url)
        try:
            yield SglangTokenizer(upstream), server
        finally:
            await upstream.close()


@pytest.mark.asyncio
async def test_tokens_have_their_texts_which_are_asked_for_all_at_once_and_remembered() -> None:
    async with tokenizing() as (tokenizer, server):
        expected = (Token(504, "The"), Token(3575, " capital"), Token(8083, ""), Token(504, "The"))
        assert await tokenizer.tokenize("The capital") == expected
        assert await tokenizer.tokenize("The capital") == expected
        assert [(one.path, one.json) for one in server.requests] == [
            ("/v1/tokenize", {"prompt": "The capital"}),
            ("/v1/detokenize", {"tokens": [[504], [3575], [8083]], "skip_special_tokens": False}),
            ("/v1/tokenize", {"prompt": "The capital"}),
        ]


@pytest.mark.asyncio
async def test_a_chat_is_rendered_with_all_that_counts() -> None:
    async with tokenizing() as (tokenizer, server):
        submission = Submission(
            messages=(USER,), tools=(TOOL,), tool_choice=ToolMode.REQUIRED, reasoning=ReasoningEffort.NONE
        )
        assert await tokenizer.prompt(submission) == Prompt(token_ids=(504, 3575, 8083, 504), tokens=4)
        (request,) = server.requests
        assert request.json["messages"] == [{"role": "user", "content": "hi"}]
        assert request.json["tools"][0]["function"]["name"] == "f"
        assert (request.json["tool_choice"], request.json["reasoning_effort"]) == ("required", "none")


@pytest.mark.asyncio
async def test_special_tokens_have_text_and_no_tokens_have_none() -> None:
    async with tokenizing() as (tokenizer, server):
        assert await tokenizer.detokenize((1, 504)) == "<|im_start|>The"
        assert await tokenizer.detokenize(()) == ""
        assert len(server.requests) == 1


@pytest.mark.parametrize("told", [b"{}", b"[]", b'{"tokens":[[1]],"text":["a"]}', b'{"tokens":[1],"text":[]}'])
@pytest.mark.asyncio
async def test_a_reply_that_is_none_is_not_the_engines_protocol(told: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(reply(200, told))

    async with tokenizing(script) as (tokenizer, _):
        with pytest.raises(EngineError) as caught:
            await tokenizer.tokenize("a")
        assert caught.value.reason == "UPSTREAM_PROTOCOL"
