"""The adapter, ready to ask a scripted server that speaks vLLM's small endpoints too."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Any

from harness.telling import told_by
from tokenwire.domain.context import Clock
from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Job, Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.status import EngineState, ModelInfo
from tokenwire.engines.vllm.adapter import VllmEngine
from unit.engines.openai.replay import Told
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, Script, ScriptedServer, chunk, reply, serving

CLOCK = Clock(monotonic=lambda: 0.0, wall=lambda: 1_792_567_680.0)
SEPARATOR = 214


def text_of(token: int) -> str:
    """Returns the text of a token of the scripted vocabulary."""
    return "\x1e" if token == SEPARATOR else f"<{token}>"


def small_endpoints(script: Script) -> Script:
    """Answers /tokenize of the separator and /detokenize, and leaves the rest to the script."""

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/tokenize":
            await exchange.write(reply(200, json.dumps({"tokens": [SEPARATOR]}).encode()))
        elif exchange.path == "/detokenize":
            text = "".join(map(text_of, exchange.json["tokens"]))
            await exchange.write(reply(200, json.dumps({"prompt": text}).encode()))
        else:
            await script(exchange)

    return answer


@asynccontextmanager
async def running(script: Script, **options: Any) -> AsyncGenerator[tuple[VllmEngine, ScriptedServer], None]:
    """Runs a scripted server and the adapter of it as long as the block; the adapter's random words are r0, r1 ..."""
    numbers = count()
    async with serving(small_endpoints(script)) as server:
        engine = VllmEngine(
            name="v", url=server.url, clock=CLOCK, random=lambda: f"r{next(numbers)}", **{"model": "m"} | options
        )
        engine.status.set(EngineState.READY, (ModelInfo("m", 4096),))
        try:
            yield engine, server
        finally:
            await engine.close()


def stream(body: bytes) -> bytes:
    """Returns a whole reply with a stream's events."""
    return STREAM_HEAD + chunk(body) + LAST_CHUNK


def job(submission: Submission) -> Job:
    """Returns the first attempt of a run."""
    return Job(run_id="r", model="m", submission=submission, prompt=Prompt(text=submission.prompt))


async def told(engine: VllmEngine, submission: Submission) -> Told:
    """Returns all that the engine tells."""
    heard = Told()
    try:
        async with aclosing(told_by(engine, job(submission))) as reads:
            async for batch in reads:
                heard.add(batch)
    except EngineError as error:
        heard.failure = error.reason
    return heard
