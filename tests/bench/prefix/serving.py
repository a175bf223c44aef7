"""Starts a tokenwire before an engine."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench.prefix.measuring import POLICY
from tokenwire.v1.model_pb2 import MODEL_STATE_READY
from tokenwire_client import AsyncClient
from tokenwire_client.errors import TokenwireClientError

SERVICE = Path(__file__).parents[3] / "service"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


@asynccontextmanager
async def tokenwire(options: Sequence[str]) -> AsyncIterator[tuple[AsyncClient, str]]:
    """Runs a tokenwire while the block runs, and yields a connection to it, with the name of its model.

    Args:
        options: what the command line gets, such as the engine; settings of the environment do not reach it.

    Raises:
        RuntimeError: if it does not start, or its engine does not answer.
    """
    target = f"127.0.0.1:{_free_port()}"
    command = (sys.executable, "-m", "tokenwire", "serve", "--listen", target, "--log-level", "warning", *options)
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(SERVICE)])
    process = await asyncio.create_subprocess_exec(
        *command, env=environment | {"PYTHONPATH": path}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with AsyncClient(target, policy=POLICY) as client:
            model = await _model(client, process)
        # The first connection may have waited long for its next try.
        async with AsyncClient(target, policy=POLICY) as client:
            yield client, model
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _model(client: AsyncClient, process: asyncio.subprocess.Process) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise RuntimeError(f"tokenwire ended with {process.returncode} before it served")
        with suppress(TokenwireClientError):
            for model in await client.models():
                if model.state == MODEL_STATE_READY:
                    return model.name
        await asyncio.sleep(0.2)
    raise RuntimeError(f"tokenwire has no model that answers after {START_SECONDS:g} seconds: does the engine run?")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
