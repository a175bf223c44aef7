"""How busy an engine is, seen at the engine itself."""

import asyncio
import re
from typing import Any

import httpx

from behaviour.backend import Backend
from engines.embedded import busy_slots
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.scripted import ScriptedEngine


async def running(backend: Backend) -> int:
    """Returns how many requests the engine works on."""
    engine: Any = backend.engine
    if isinstance(engine, ScriptedEngine):
        # Asking the others takes a turn of the loop as well.
        await asyncio.sleep(0)
        return engine.running
    if isinstance(engine, LlamaCppEngine):
        return await busy_slots(engine)
    async with httpx.AsyncClient(base_url=str(engine._upstream._client.base_url)) as client:
        if backend.name == "vllm":
            metrics = (await client.get("/metrics")).text
            return sum(
                int(float(one))
                for one in re.findall(r"^vllm:num_requests_(?:running|waiting){.*} (\S+)$", metrics, re.MULTILINE)
            )
        loads = (await client.get("/v1/loads")).json()["loads"]
        return sum(one["num_running_reqs"] + one["num_waiting_reqs"] for one in loads)


async def becomes_busy(backend: Backend) -> None:
    """Waits until the engine works."""
    async with asyncio.timeout(30):
        while not await running(backend):
            pass


async def becomes_idle(backend: Backend) -> None:
    """Waits until the engine has nothing to do, for the two seconds of promise P5 at most."""
    async with asyncio.timeout(2):
        while await running(backend):
            pass
