"""A service that a test can tell to leave, as a signal does, and then watch while it drains."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from harness.chosen_transport import CHOSEN
from harness.service import Service
from harness.waiting import until
from tokenwire.app import build
from tokenwire.engines.engine import Engine
from tokenwire.server import serving
from tokenwire.settings import Settings


@dataclass(frozen=True)
class Leaving:
    """A running service, told to drain by `leave`; `left` is done when it has ended."""

    service: Service
    leave: asyncio.Event
    left: asyncio.Task[None]

    async def begin(self) -> None:
        """Tells it to leave, and waits until it accepts no more runs."""
        self.leave.set()
        await until(lambda: self.service.app.runs._draining, "it drains")


@asynccontextmanager
async def leaving(*engines: Engine, **settings: object) -> AsyncIterator[Leaving]:
    """Runs a service until it has left; it is told so at the latest when the block ends."""
    app = build(Settings.model_validate({"listen": "127.0.0.1:0", "transport": CHOSEN} | settings), list(engines))
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def serve() -> None:
        async with serving(app) as at:
            port.set_result(at)
            await leave.wait()

    left = asyncio.create_task(serve(), name="serving")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await port}") as channel:
            yield Leaving(Service(app, await port, channel), leave, left)
            leave.set()
            await left
    finally:
        left.cancel()
        await asyncio.wait([left])
