"""Prompts and tokens by vLLM's own endpoints, and how often they are asked."""

import json
from dataclasses import replace
from functools import partial

import pytest

from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Message, ReasoningEffort, Role, Submission, Tool, ToolMode
from tokenwire.engines.engine import Token, Tokenizer
from tokenwire.engines.upstream import Upstream
from tokenwire.engines.vllm import vocabulary
from tokenwire.engines.vllm.server import Server
from tokenwire.engines.vllm.tokenizer import VllmTokenizer
from tokenwire.engines.vllm.vocabulary import Vocabulary
from unit.engines import captures
from unit.engines.scripted_http import Exchange, Script, ScriptedServer, always, reply, serving
from unit.engines.vllm.running import SEPARATOR, small_endpoints, text_of

CHAT = Submission(messages=(Message(role=Role.USER, content="hi"),))


async def _nothing_else(exchange: Exchange) -> None:
    raise AssertionError(exchange.path)


class Asked:
    """A vocabulary and the server behind it, as long as the block."""

    def __init__(self, script: Script, model: str = "") -> None:
        self._serving = serving(script)
        self._model = model

    async def __aenter__(self) -> tuple[Vocabulary, ScriptedServer]:
        server = await self._serving.__aenter__()
        self._upstream = Upstream(server.url)
        return Vocabulary(self._upstream, lambda: self._model), server

    async def __aexit__(self, *error: object) -> None:
        await self._upstream.close()
        await self._serving.__aexit__(None, None, None)


def _detokenized(server: ScriptedServer) -> list[list[int]]:
    return [one.json["tokens"] for one in server.requests if one.path == "/detokenize"]


@pytest.mark.asyncio
async def test_unknown_tokens_are_asked_for_together_and_once() -> None:
    async with Asked(small_endpoints(_nothing_else)) as (words, server):
        assert await words.texts([7, 8, 7]) == {7: "<7>", 8: "<8>"}
        assert await words.texts([8, 9, SEPARATOR]) == {8: "<8>", 9: "<9>", SEPARATOR: "\x1e"}
        assert await words.texts([]) == {}
        assert _detokenized(server) == [[SEPARATOR], [SEPARATOR, 7, SEPARATOR, 8], [SEPARATOR, 9]]


@pytest.mark.asyncio
async def test_what_swallows_its_neighbours_is_told_all_the_same() -> None:
    # Byte tokens of some vocabularies make one broken character with what is beside them.
    async def script(exchange: Exchange) -> None:
        tokens = exchange.json["tokens"]
        text = "".join(map(text_of, tokens))
        swallowed = text.replace("\x1e<6>", "\ufffd").replace("<6>", "\ufffd")
        await exchange.write(reply(200, json.dumps({"prompt": swallowed}).encode()))

    async def answer(exchange: Exchange) -> None:
        await (small_endpoints(script) if exchange.path == "/tokenize" else script)(exchange)

    async with Asked(answer) as (words, _):
        assert await words.texts([3, 4, 5, 6, 7]) == {3: "<3>", 4: "<4>", 5: "<5>", 6: "", 7: "<7>"}


@pytest.mark.asyncio
async def test_without_a_separator_tokens_are_asked_for_one_by_one() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.path == "/tokenize":
            await exchange.write(reply(200, b'{"tokens":[1,2]}'))
        else:
            await exchange.write(reply(200, json.dumps({"prompt": str(exchange.json["tokens"])}).encode()))

    async with Asked(script) as (words, server):
        assert await words.texts([7, 8]) == {7: "[7]", 8: "[8]"}
        assert _detokenized(server) == [[2], [7], [8]]


@pytest.mark.asyncio
async def test_no_more_is_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MAX_KNOWN", 2)
    async with Asked(small_endpoints(_nothing_else)) as (words, server):
        assert await words.texts([5, 6, 7]) == {5: "<5>", 6: "<6>", 7: "<7>"}
        assert await words.texts([6, 7]) == {6: "<6>", 7: "<7>"}
        assert await words.texts([5]) == {5: "<5>"}
        assert len(_detokenized(server)) == 3


@pytest.mark.asyncio
async def test_many_tokens_are_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "BATCH_TOKENS", 2)
    async with Asked(small_endpoints(_nothing_else)) as (words, server):
        assert await words.texts([5, 6, 7]) == {5: "<5>", 6: "<6>", 7: "<7>"}
        assert len(_detokenized(server)) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [b"{}", b"[]", b"null", b"", b'{"tokens":["a"]}', b"<html>"])
async def test_what_is_no_answer_is_a_failure(answer: bytes) -> None:
    async with Asked(always(reply(200, answer))) as (words, _):
        with pytest.raises(EngineError):
            await words.texts([7])
        with pytest.raises(EngineError):
            await words.tokenize({})


@pytest.mark.asyncio
async def test_a_prompt_is_read_as_a_completion_reads_it() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.path == "/tokenize" and exchange.json["prompt"] == "Hello world":
            await exchange.write(reply(200, captures.body("vllm", "70-tokenize-prompt.resp")))
        else:
            await small_endpoints(_nothing_else)(exchange)

    async with Asked(script, model="m") as (words, server):
        tokenizer: Tokenizer = VllmTokenizer(words)
        assert await tokenizer.tokenize("Hello world") == (Token(19556, "<19556>"), Token(905, "<905>"))
        assert server.requests[0].json == {"model": "m", "prompt": "Hello world", "add_special_tokens": True}


@pytest.mark.asyncio
async def test_tokens_become_text_as_they_are() -> None:
    async with Asked(always(reply(200, captures.body("vllm", "71-detokenize.resp")))) as (words, server):
        assert await VllmTokenizer(words).detokenize((19556, 905)) == "Hello world"
        assert server.requests[0].json == {"tokens": [19556, 905]}


@pytest.mark.asyncio
async def test_a_chat_is_rendered_with_all_that_its_template_sees() -> None:
    async def script(exchange: Exchange) -> None:
        whole = captures.body("vllm", "70b-tokenize-messages.resp")
        await exchange.write(reply(200, whole if exchange.path == "/tokenize" else b'{"prompt":"text"}'))

    async with Asked(script, model="m") as (words, server):
        prompt = await VllmTokenizer(words).prompt(CHAT)
        assert (prompt.text, prompt.tokens, prompt.token_ids[:3]) == ("text", 37, (1, 9690, 198))
        assert isinstance(prompt, Prompt)
        messages = [{"role": "user", "content": "hi"}]
        bare = {"model": "m", "messages": messages, "add_generation_prompt": True}
        assert server.requests[0].json == bare
        for effort, enabled in ((ReasoningEffort.NONE, False), (ReasoningEffort.HIGH, True)):
            server.requests.clear()
            chat = Submission(messages=CHAT.messages, tools=(Tool(name="f"),), tool_choice="f", reasoning=effort)
            await VllmTokenizer(words).prompt(chat)
            sent = server.requests[0].json
            assert sent["tools"][0]["function"]["name"] == "f"
            assert sent["chat_template_kwargs"] == {"reasoning_effort": effort.name.lower(), "enable_thinking": enabled}
            assert sent.keys() == bare.keys() | {"tools", "chat_template_kwargs"}


@pytest.mark.asyncio
async def test_tools_are_rendered_as_the_front_end_renders_them() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(reply(200, b'{"tokens":[1]}' if exchange.path == "/tokenize" else b'{"prompt":"text"}'))

    strict, free, bound = Server(rust=True, tags=True), Server(rust=True, tags=False), ToolMode.NONE
    cases = [
        (Server(), bound, [True]),
        (strict, None, [True]),
        (free, None, [None]),
        # The Rust front end does not tell of them.
        (strict, bound, []),
    ]
    async with Asked(script) as (words, server):
        for known, choice, expected in cases:
            chat = Submission(messages=CHAT.messages, tools=(Tool(name="f"),), tool_choice=choice)
            await VllmTokenizer(words, partial(replace, known)).prompt(chat)
            tools = [one for one in server.requests if one.path == "/tokenize"][-1].json.get("tools", [])
            assert [tool["function"].get("strict") for tool in tools] == expected
