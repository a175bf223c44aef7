"""Log probabilities by vLLM's ids, with the texts of its vocabulary."""

import json
from typing import Any

import pytest

from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import PromptRead
from tokenwire.domain.request import BeamSearch, Logprobs, Message, Output, Role, Sampling, Submission
from unit.engines import captures
from unit.engines.scripted_http import ScriptedServer, always, reply
from unit.engines.vllm.running import SEPARATOR, running, stream, told

TEXT = Channel()
CHAT = (Message(role=Role.USER, content="hi"),)


def _asked(**values: Any) -> Submission:
    return Submission(prompt="hi", output=Output(logprobs=Logprobs(**values)))


def _stream(name: str) -> bytes:
    return stream(captures.body("vllm", f"{name}.resp"))


def _reply(name: str) -> bytes:
    return reply(200, captures.body("vllm", f"{name}.resp"))


def _pairs(tokens: tuple[TokenLogprob, ...]) -> list[tuple[int | None, str, float | None]]:
    return [(one.token_id, one.token, one.logprob and round(one.logprob, 2)) for one in tokens]


def _detokenized(server: ScriptedServer) -> int:
    return sum(one.path == "/detokenize" for one in server.requests)


@pytest.mark.asyncio
async def test_chosen_and_best_tokens_have_ids_and_texts() -> None:
    async with running(always(_stream("sent-completion-logprobs"))) as (engine, _):
        first, second = (await told(engine, _asked(top_n=2))).logprobs[TEXT]
        assert _pairs((first, second)) == [(7042, "<7042>", -0.27), (30, "<30>", -0.39)]
        assert _pairs(first.top) == [(7042, "<7042>", -0.27), (260, "<260>", -2.71)]
        assert _pairs(second.top) == [(30, "<30>", -0.39), (28, "<28>", -1.64)]
        assert first.given == ()


@pytest.mark.asyncio
async def test_a_text_is_asked_for_once() -> None:
    async with running(always(_stream("sent-completion-logprobs"))) as (engine, server):
        await told(engine, _asked(top_n=2))
        asked = _detokenized(server)
        await told(engine, _asked(top_n=2))
        assert _detokenized(server) == asked > 1


@pytest.mark.asyncio
async def test_given_tokens_are_told_in_the_order_of_the_request_and_are_not_the_best() -> None:
    async with running(always(_stream("sent-completion-given-logprobs"))) as (engine, _):
        first, second = (await told(engine, _asked(token_ids=(5, 7042, 260)))).logprobs[TEXT]
        assert first.top == second.top == ()
        assert _pairs(second.given) == [(5, "<5>", -23.42), (7042, "<7042>", -8.51), (260, "<260>", -10.2)]


@pytest.mark.asyncio
async def test_of_all_tokens_those_that_were_given_are_picked() -> None:
    body = (
        b'data: {"choices":[{"text":"a","finish_reason":"stop","token_ids":[1],"logprobs":{"tokens":["token_id:1"],'
        b'"token_logprobs":[-1.0],"top_logprobs":[{"token_id:1":-1.0,"token_id:2":-9999.0,"token_id:3":-0.5}]}}]}\n\n'
        b"data: [DONE]\n\n"
    )
    async with running(always(stream(body))) as (engine, _):
        (place,) = (await told(engine, _asked(all=True, token_ids=(2,)))).logprobs[TEXT]
        assert [one.token_id for one in place.top] == [3, 1, 2]
        assert _pairs(place.given) == [(2, "<2>", -9999.0)]


@pytest.mark.asyncio
async def test_the_best_of_a_chat_are_the_best_though_the_chosen_one_is_not() -> None:
    async with running(always(_stream("sent-chat-logprobs"))) as (engine, _):
        asked = Submission(messages=CHAT, output=Output(logprobs=Logprobs(top_n=2)))
        first, *_ = (await told(engine, asked)).logprobs[TEXT]
        assert (first.token_id, first.token, round(first.logprob or 0, 1)) == (27954, "<27954>", -18.0)
        assert [one.token_id for one in first.top] == [57, 19556]


@pytest.mark.asyncio
async def test_a_server_that_tells_texts_is_understood() -> None:
    async with running(always(_stream("14-completions-stream-logprobs"))) as (engine, server):
        first, _ = (await told(engine, _asked(top_n=1))).logprobs[TEXT]
        assert _pairs((first, *first.top)) == [(None, " Paris", -0.27), (None, " Paris", -0.27)]
        assert not _detokenized(server)


@pytest.mark.asyncio
async def test_a_prompt_is_told_token_by_token_before_the_answer() -> None:
    async with running(always(_reply("whole-prompt-logprobs"))) as (engine, server):
        asked = Submission(prompt="hi", output=Output(prompt_logprobs=Logprobs(top_n=1)))
        heard = await told(engine, asked)
        assert heard.prompt == PromptRead(prompt_tokens=5, cached_tokens=0, token_ids=[504, 3575, 282, 4649, 314])
        first, second, third, *_ = heard.prompt_logprobs
        assert first == TokenLogprob(token_id=504, token="<504>", logprob=None)
        assert _pairs((second, *second.top)) == [(3575, " capital", -11.71), (29, "-", -0.83)]
        assert _pairs((third, *third.top)) == [(282, " of", -0.34), (282, " of", -0.34)]
        assert len(heard.prompt_logprobs) == 5
        assert heard.texts == {TEXT: " Paris."}
        assert "stream" not in server.requests[0].json


@pytest.mark.asyncio
async def test_a_chats_prompt_and_answer_are_told_together() -> None:
    async with running(always(_reply("whole-chat-prompt-logprobs"))) as (engine, _):
        output = Output(prompt_logprobs=Logprobs(top_n=0), logprobs=Logprobs(top_n=1))
        heard = await told(engine, Submission(messages=CHAT, output=output))
        assert len(heard.prompt_logprobs) == 32
        assert all(one.top == () for one in heard.prompt_logprobs)
        assert [one.token_id for one in heard.logprobs[TEXT]] == heard.ids[TEXT] == [57, 5248]
        assert _pairs(heard.logprobs[TEXT][0].top) == [(57, "<57>", -2.37)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [
        {"prompt_token_ids": [1, 2], "prompt_logprobs": [None]},
        {"prompt_token_ids": [1, 2]},
        {"prompt_token_ids": [1], "prompt_logprobs": [{"2": {"logprob": -1.0}}]},
        {"prompt_token_ids": [1], "prompt_logprobs": [{"x": {"logprob": -1.0}}]},
        {"prompt_token_ids": [1], "prompt_logprobs": [{"1": {}}]},
    ],
)
async def test_a_prompt_that_is_not_told_as_asked_is_a_failure(answer: dict[str, Any]) -> None:
    body = {"choices": [{"text": "a", "finish_reason": "stop", **answer}]}
    async with running(always(reply(200, json.dumps(body).encode()))) as (engine, _):
        heard = await told(engine, Submission(prompt="hi", output=Output(prompt_logprobs=Logprobs(top_n=0))))
        assert heard.failure == "UPSTREAM_PROTOCOL"


@pytest.mark.asyncio
async def test_the_beams_that_were_asked_for_are_kept_with_their_log_probabilities() -> None:
    async with running(always(_reply("whole-beam"))) as (engine, server):
        sampling = Sampling(n=2, beam_search=BeamSearch(width=3))
        heard = await told(engine, Submission(prompt="hi", sampling=sampling, output=_asked(top_n=1).output))
        assert server.requests[0].json["n"] == 3
        assert heard.texts == {Channel(0): " Paris.\n\n", Channel(1): " Paris.\n-"}
        assert heard.ids[Channel(1)] == [one.token_id for one in heard.logprobs[Channel(1)]] == [7042, 30, 198, 29]
        assert [len(one.top) for one in heard.logprobs[Channel(1)]] == [1, 1, 1, 1]
        assert SEPARATOR not in heard.ids[Channel(1)]
