"""What the adapter learns of a server, and when it asks."""

import json

import pytest

from harness.telling import told_by
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.sglang.server import Server
from tokenwire.engines.status import EngineState, Load, ModelInfo
from unit.engines import captures
from unit.engines.scripted_http import Exchange, reply
from unit.engines.sglang.running import MISSING, VOCABULARY, info, job, paths, running

READY = reply(200, b"")


@pytest.mark.asyncio
async def test_a_server_is_asked_what_it_is() -> None:
    async with running({}) as (engine, server):
        await engine.check()
        # Of 4090 tokens a prompt may have 4089, although the window has 4096.
        assert engine.status.models == (ModelInfo("smollm2", 4090, VOCABULARY),)
        assert (engine.status.state, engine.status.load) == (EngineState.READY, Load(0, 0))
        assert engine.server == Server(
            tokenizes=True,
            max_prompt=4090,
            vocabulary=VOCABULARY,
            unknown_character=(1, 2),
            seeds=False,
            priorities=0,
        )
        # These generate.
        assert not {"/health", "/health_generate", "/generate"} & set(paths(server))


@pytest.mark.asyncio
async def test_what_is_asked_of_a_server_that_never_answered_is_not_refused_as_wrong() -> None:
    async with running({"/ready": reply(503, b"")}, model="m") as (engine, server):
        await engine.check()
        # Whether it could have answered is not known.
        with pytest.raises(EngineError) as caught:
            engine.vet(Submission(prompt_ids=(1,)))
        assert (caught.value.code, caught.value.retryable) == (Code.UNAVAILABLE, True)
        with pytest.raises(EngineError):
            await anext(told_by(engine, job(Submission(prompt="hi"))))
        assert paths(server) == ["/ready"]


@pytest.mark.asyncio
async def test_a_failed_check_leaves_what_was_known() -> None:
    replies = {"/ready": READY}
    async with running(replies) as (engine, _):
        await engine.check()
        replies["/ready"] = reply(503, b"")
        await engine.check()
        engine.vet(Submission(prompt_ids=(VOCABULARY - 1,)))


@pytest.mark.asyncio
async def test_what_it_is_is_asked_once_and_again_after_it_was_away() -> None:
    replies = {"/ready": READY}
    async with running(replies) as (engine, server):
        await engine.check()
        await engine.check()
        assert paths(server).count("/server_info") == 1
        tokenizer = engine.tokenizer
        replies["/ready"] = reply(503, b"")
        await engine.check()
        assert engine.status.state is EngineState.UNAVAILABLE
        replies |= {"/ready": READY, "/server_info": info(incremental_streaming_output=True)}
        await engine.check()
        assert (engine.status.state, paths(server).count("/server_info")) == (EngineState.READY, 2)
        assert engine.server.incremental
        # Another model may have other tokens.
        assert engine.tokenizer is not tokenizer


@pytest.mark.asyncio
async def test_parsers_scheduling_and_limits_are_known() -> None:
    replies = {
        "/server_info": info(
            enable_deterministic_inference=True,
            enable_priority_scheduling=True,
            schedule_low_priority_values_first=True,
            preferred_sampling_params='{"max_new_tokens": 512}',
            max_req_input_len=9000,
        ),
        "/model_info": reply(200, b'{"tool_call_parser":"qwen25","reasoning_parser":"qwen3"}'),
    }
    async with running(replies) as (engine, _):
        await engine.check()
        known = engine.server
        assert (known.tool_parser, known.reasoning_parser, known.seeds, known.priorities) == (True, True, True, -1)
        assert known.default_max_tokens == 512
        assert engine.status.models == (ModelInfo("smollm2", 4096, VOCABULARY),)


@pytest.mark.parametrize("preferred", [None, "x", "[]", {}, {"max_new_tokens": None}, {"max_new_tokens": -1}])
@pytest.mark.asyncio
async def test_without_the_operators_limit_it_is_sglangs(preferred: object) -> None:
    async with running({"/server_info": info(preferred_sampling_params=preferred)}) as (engine, _):
        await engine.check()
        assert engine.server.default_max_tokens == 128


@pytest.mark.asyncio
async def test_a_server_that_tells_little_answers_all_the_same() -> None:
    # Such as the Rust front end, whose missing endpoints are empty replies of 404.
    nothing = reply(404, b"", content_type="text/plain")
    little = ("/ready", "/ping", "/server_info", "/model_info", "/v1/loads", "/v1/tokenize", "/v1/detokenize")
    async with running(dict.fromkeys(little, nothing)) as (engine, _):
        await engine.check()
        assert (engine.status.state, engine.status.load) == (EngineState.READY, None)
        assert engine.status.models == (ModelInfo("smollm2", 4096),)
        # Of the two servers, the one that takes less.
        assert engine.server == Server(rust=True, chats_plainly=False)
        assert engine.tokenizer is None


@pytest.mark.asyncio
async def test_ping_is_asked_where_ready_is_not_there() -> None:
    async with running({"/ready": MISSING, "/ping": reply(503, b"")}) as (engine, _):
        await engine.check()
        assert engine.status.state is EngineState.UNAVAILABLE


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/models", reply(500, b"{}")),
        ("/v1/models", reply(200, b"[1]")),
        ("/v1/models", MISSING),
        ("/server_info", reply(500, b"{}")),
        ("/server_info", reply(200, b'{"max_req_input_len":"many"}')),
        ("/v1/tokenize", reply(500, b"{}")),
        ("/v1/tokenize", reply(200, b'{"tokens":1}')),
        ("/v1/detokenize", reply(429, b"{}")),
    ],
)
@pytest.mark.asyncio
async def test_a_server_that_answers_nonsense_is_not_available(path: str, answer: bytes) -> None:
    async with running({path: answer}) as (engine, _):
        await engine.check()
        assert engine.status.state is EngineState.UNAVAILABLE


@pytest.mark.parametrize("answer", [reply(500, b""), reply(200, b"{}"), reply(200, b"x"), MISSING])
@pytest.mark.asyncio
async def test_a_server_that_does_not_tell_its_load_is_available(answer: bytes) -> None:
    async with running({"/v1/loads": answer}) as (engine, _):
        await engine.check()
        assert (engine.status.state, engine.status.load) == (EngineState.READY, None)


@pytest.mark.asyncio
async def test_the_load_is_that_of_all_replicas_each_time() -> None:
    def loads(*ranks: tuple[int, int]) -> bytes:
        told = [{"num_running_reqs": running, "num_waiting_reqs": waiting} for running, waiting in ranks]
        return reply(200, json.dumps({"loads": told}).encode())

    replies = {"/v1/loads": loads((2, 1), (3, 0))}
    async with running(replies) as (engine, _):
        await engine.check()
        assert engine.status.load == Load(5, 1)
        replies["/v1/loads"] = loads((0, 0))
        await engine.check()
        assert engine.status.load == Load(0, 0)


@pytest.mark.parametrize("size", [1, 2, 151_936, 8_388_607])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.asyncio
async def test_the_vocabulary_is_found_by_the_detokenizer(size: int, fails: bool) -> None:
    async def detokenize(exchange: Exchange) -> None:
        first, second = exchange.json["tokens"]
        assert first == second
        assert exchange.json["skip_special_tokens"] is False
        if first < size:
            # A space alone has no text at the beginning.
            await exchange.write(reply(200, b'{"text":" "}'))
        else:
            error = b'{"object":"error","message":"x","type":"InternalServerError","code":500}'
            await exchange.write(reply(500, error) if fails else reply(200, b'{"text":""}'))

    async with running({"/v1/detokenize": detokenize}) as (engine, _):
        await engine.check()
        assert engine.status.models[0].vocabulary == size


@pytest.mark.asyncio
async def test_a_template_that_is_not_jinjas_may_have_stop_strings() -> None:
    async def tokenize(exchange: Exchange) -> None:
        if "add_generation_prompt" in exchange.json:
            await exchange.write(reply(400, b'{"object":"error","message":"x","type":"BadRequest","code":400}'))
        else:
            await exchange.write(reply(200, b'{"tokens":[7],"count":1,"max_model_len":9}'))

    async with running({"/v1/tokenize": tokenize}) as (engine, _):
        await engine.check()
        assert (engine.server.tokenizes, engine.server.chats_plainly) == (True, False)
        assert engine.server.unknown_character == (7,)


@pytest.mark.asyncio
async def test_adapters_of_a_model_are_no_models() -> None:
    listed = json.loads(captures.body("sglang", "models.txt"))
    listed["data"].append({"id": "lora", "parent": "smollm2", "max_model_len": None})
    async with running({"/v1/models": reply(200, json.dumps(listed).encode())}) as (engine, _):
        await engine.check()
        assert [model.name for model in engine.status.models] == ["smollm2"]


@pytest.mark.asyncio
async def test_prompts_are_rendered_as_ids_by_the_server() -> None:
    replies = {
        "/v1/tokenize": reply(200, captures.body("sglang", "tokenize_messages.txt")),
        "/v1/detokenize": reply(200, captures.body("sglang", "detokenize.txt")),
    }
    async with running(replies) as (engine, _):
        await engine.check()
        assert engine.takes_ids
        assert engine.tokenizer is not None
        prompt = await engine.tokenizer.prompt(Submission())
        assert prompt == Prompt(token_ids=prompt.token_ids, tokens=31)
        assert await engine.tokenizer.detokenize((504, 3575, 282)) == "The capital of"
