"""The adapter, ready to ask a scripted server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from tokenwire.domain.context import Clock
from tokenwire.engines.openai.adapter import OpenAIEngine
from unit.engines.scripted_http import Script, ScriptedServer, serving

CLOCK = Clock(monotonic=lambda: 0.0, wall=lambda: 1_792_567_680.0)


def engine_at(url: str, **options: Any) -> OpenAIEngine:
    """Returns the adapter of the engine there; the caller closes it."""
    return OpenAIEngine(name="e", url=url, clock=CLOCK, **options)


@asynccontextmanager
async def running(script: Script, **options: Any) -> AsyncGenerator[tuple[OpenAIEngine, ScriptedServer], None]:
    """Runs a scripted server and the adapter of it as long as the block."""
    async with serving(script) as server:
        engine = engine_at(server.url, **options)
        try:
            yield engine, server
        finally:
            await engine.close()
