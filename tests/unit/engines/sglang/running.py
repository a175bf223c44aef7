"""The adapter, ready to ask a scripted SGLang."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from tokenwire.domain.generation import Job, Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.sglang.adapter import SglangEngine
from unit.engines import captures
from unit.engines.openai.running import CLOCK
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, Script, ScriptedServer, chunk, reply, serving

VOCABULARY = 300
MISSING = reply(404, b'{"detail":"Not Found"}')
SERVER_INFO: Mapping[str, Any] = {
    "status": "ready",
    "frontend": "python",
    "incremental_streaming_output": False,
    "max_req_input_len": 4090,
    "enable_deterministic_inference": False,
    "enable_priority_scheduling": False,
    "schedule_low_priority_values_first": False,
    "preferred_sampling_params": None,
    "tool_call_parser": None,
    "reasoning_parser": None,
}
PROMPT = Prompt(text="hi", token_ids=(1, 2), tokens=2)


def job(submission: Submission, prompt: Prompt = PROMPT) -> Job:
    """Returns the job of a request."""
    return Job(run_id="r", model="m", submission=submission, prompt=prompt)


def streamed(stream: bytes) -> bytes:
    """Returns the whole reply of a stream."""
    return STREAM_HEAD + chunk(stream) + LAST_CHUNK


def answering(replies: Mapping[str, bytes | Script]) -> Script:
    """Returns a script that answers by path, as a server that was just started does elsewhere."""

    async def script(exchange: Exchange) -> None:
        answer = replies.get(exchange.path) or _answer(exchange)
        if isinstance(answer, bytes):
            await exchange.write(answer)
        else:
            await answer(exchange)

    return script


def info(**fields: Any) -> bytes:
    """Returns the reply of /server_info with other values."""
    return reply(200, json.dumps({**SERVER_INFO, **fields}).encode())


@asynccontextmanager
async def running(
    replies: Mapping[str, bytes | Script], **options: Any
) -> AsyncGenerator[tuple[SglangEngine, ScriptedServer], None]:
    """Runs a scripted server and the adapter of it as long as the block; names are u1, u2 and so on."""
    numbers = count(1)
    async with serving(answering(replies)) as server:
        engine = SglangEngine(name="e", url=server.url, clock=CLOCK, unique=lambda: f"u{next(numbers)}", **options)
        try:
            yield engine, server
        finally:
            await engine.close()


def paths(server: ScriptedServer) -> list[str]:
    """Returns the paths that were asked for."""
    return [exchange.path for exchange in server.requests]


def _answer(exchange: Exchange) -> bytes:
    match exchange.path:
        case "/ready" | "/abort_request":
            return reply(200, b"")
        case "/server_info":
            return info()
        case "/v1/models":
            return reply(200, captures.body("sglang", "models.txt"))
        case "/model_info":
            return reply(200, captures.body("sglang", "model_info.txt"))
        case "/v1/loads":
            return reply(200, captures.body("sglang", "v1_loads.txt"))
        case "/v1/tokenize":
            return reply(200, b'{"tokens":[1,2],"count":2,"max_model_len":4096}')
        case "/v1/detokenize":
            return reply(200, json.dumps({"text": _text(exchange.json["tokens"])}).encode())
    return MISSING


def _text(tokens: Any) -> Any:
    if tokens and isinstance(tokens[0], list):
        return [_text(one) for one in tokens]
    return "".join(f"<{one}>" for one in tokens if one < VOCABULARY)
