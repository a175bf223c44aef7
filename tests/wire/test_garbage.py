"""Python's cyclic garbage collector has next to nothing to do: what a call and its run leave is freed with them."""

import asyncio
import gc

import pytest

from harness.service import service
from tokenwire.engines.scripted import ScriptedEngine, words
from tokenwire.v1.generate_service_pb2 import GenerateRequest

CALLS = 100
# grpc's own: the closure in which it looks for a handler holds itself.
OBJECTS_PER_CALL = 5


@pytest.mark.asyncio
async def test_calls_and_runs_leave_next_to_no_cycles_behind() -> None:
    async with service(ScriptedEngine(script=lambda job: words("some words"))) as running:

        async def calls(count: int) -> None:
            for _ in range(count):
                async for _ in running.generate.StreamGenerate(GenerateRequest(prompt="hi")):
                    pass
            await asyncio.sleep(0)

        await calls(20)
        gc.collect()
        gc.disable()
        try:
            await calls(CALLS)
            found = gc.collect()
        finally:
            gc.enable()
        assert found <= CALLS * OBJECTS_PER_CALL + 20
