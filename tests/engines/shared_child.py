"""One llama.cpp child for many tests: to start one for each of them would take most of their time."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from engines.embedded import MODELS, SHARED_CHILD, started
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.llamacpp.model import SMOLLM2, fetch
from tokenwire.engines.llamacpp.process import Ready, child_command


class SharedChild:
    """A child that outlives the engines that use it; each of them takes it for its own."""

    def __init__(self, ready: Ready) -> None:
        self.ready = ready

    async def wait(self) -> int:
        """Waits for a death that does not come."""
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def stop(self) -> None:
        """Leaves it to the next one."""


@contextmanager
def shared(slots: int, context: int) -> Iterator[SharedChild]:
    """Runs a child while the block runs."""
    model = asyncio.run(fetch(MODELS))
    command = child_command(model=model.path, alias=SMOLLM2.name, slots=slots, context_per_slot=context, threads=2)
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", SHARED_CHILD: "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        yield SharedChild(msgspec.json.decode(process.stdout.readline(), type=Ready))
        process.terminate()


@asynccontextmanager
async def using(child: SharedChild, logs: Path) -> AsyncGenerator[LlamaCppEngine, None]:
    """Runs an engine on a child that is there already."""

    async def launch(engine: LlamaCppEngine) -> SharedChild:
        return child

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaCppEngine, "_launch", launch)
        options = {"slots": child.ready.slots, "context_per_slot": child.ready.ctx_per_slot}
        async with started(MODELS, logs, **options) as engine:
            yield engine
