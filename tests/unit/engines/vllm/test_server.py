"""Which front end answers, and what is found out of it."""

import json
from typing import Any

import pytest

from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState
from tokenwire.engines.support import column
from tokenwire.engines.vllm import server as known
from tokenwire.engines.vllm.server import Server
from unit.engines import captures
from unit.engines.scripted_http import Exchange, Script, ScriptedServer, reply
from unit.engines.vllm.running import running

RUST = captures.body("vllm", "rust-models.resp")
PYTHON = captures.body("vllm", "72-models.resp")
CALLED = reply(200, captures.body("vllm", "rust-trial.resp"))
FAILED = reply(*captures.errors("vllm")["rust-err-trial"])
FORCED = {"tool_choice.mode=REQUIRED", "tool_choice.name", "tools.strict"}
NEVER = {"sampling.beam_search.width", "sampling.beam_search.length_penalty", "messages.name"}
SIGN = (214,)


def _server(models: bytes, chat: bytes = FAILED) -> Script:
    async def script(exchange: Exchange) -> None:
        answers = {
            "/health": reply(200, b""),
            "/v1/models": reply(200, models),
            "/v1/chat/completions": chat,
        }
        await exchange.write(answers.get(exchange.path, reply(404, b"{}")))

    return script


def _trials(server: ScriptedServer) -> list[Any]:
    return [one.json for one in server.requests if one.path == "/v1/chat/completions"]


def _lacking(engine: Engine) -> set[str]:
    return column("vllm").keys() - engine.fields.keys()


@pytest.mark.asyncio
async def test_the_python_front_end_has_the_whole_column_and_is_not_tried() -> None:
    async with running(_server(PYTHON), model="") as (engine, server):
        await engine.check()
        assert (engine.server, _lacking(engine)) == (Server(), set())
        assert not _trials(server)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("chat", "tags", "lacking"),
    [
        (CALLED, True, NEVER),
        (FAILED, False, NEVER | FORCED),
        # Without a chat template, or a parser, or with a model that said something else: the server refuses by itself.
        (reply(400, b'{"error":{"message":"x"}}'), None, NEVER),
        (reply(200, b'{"choices":[{"message":{"content":"x"}}]}'), None, NEVER),
    ],
)
async def test_the_rust_front_end_is_tried_once(chat: bytes, tags: bool | None, lacking: set[str]) -> None:
    async with running(_server(RUST, chat), model="") as (engine, server):
        for _ in range(2):
            await engine.check()
            assert engine.status.state is EngineState.READY
        assert engine.server == Server(rust=True, tags=tags, unknown_character=SIGN)
        assert _lacking(engine) == lacking
        assert engine.fields["sampling.n"].note.startswith("1 alone")
        (trial,) = _trials(server)
        assert (trial["model"], trial["tool_choice"]) == ("smollm2", "required")
        assert trial["tools"][0]["function"]["strict"] is True


@pytest.mark.asyncio
@pytest.mark.parametrize("chat", [reply(503, b""), reply(200, b"[]"), b""])
async def test_a_trial_that_tells_nothing_is_made_again(chat: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without an answer it is not waited for.
    monkeypatch.setattr(known, "TRIAL_SECONDS", 0.2)

    async with running(_server(RUST, chat), model="") as (engine, server):
        await engine.check()
        assert (engine.status.state, engine.server.rust, engine.server.tags) == (EngineState.READY, True, None)
        server.script = _answering_tokens(_server(RUST, CALLED))
        await engine.check()
        assert engine.server.tags is True


@pytest.mark.asyncio
async def test_a_server_that_comes_back_may_be_another_one() -> None:
    async def down(exchange: Exchange) -> None:
        await exchange.write(reply(503, b""))

    async with running(_server(RUST, FAILED), model="") as (engine, server):
        await engine.check()
        assert engine.server.tags is False
        server.script = down
        await engine.check()
        # What was known is kept for requests on their way.
        assert engine.server.tags is False
        for models, chat, expected in ((RUST, CALLED, NEVER), (PYTHON, CALLED, set())):
            server.script = down
            await engine.check()
            server.script = _answering_tokens(_server(models, chat))
            await engine.check()
            assert _lacking(engine) == expected


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [reply(404, b"{}"), reply(200, b"[]"), reply(503, b"")])
async def test_a_server_without_a_tokenizer_is_ready_and_one_that_is_overloaded_is_not(answer: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await (exchange.write(answer) if exchange.path == "/tokenize" else _server(RUST, CALLED)(exchange))

    async with running(script, model="") as (engine, server):
        server.script = script
        await engine.check()
        ready = not answer.startswith(b"HTTP/1.1 503")
        assert (engine.status.state is EngineState.READY, engine.server.tags) == (ready, True if ready else None)
        assert engine.server.unknown_character == ()


def _answering_tokens(script: Script) -> Script:
    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/tokenize":
            await exchange.write(reply(200, json.dumps({"tokens": SIGN}).encode()))
        else:
            await script(exchange)

    return answer
