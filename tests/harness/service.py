"""A whole service on a real port, with engines that a test scripts."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from harness.chosen_transport import CHOSEN
from harness.waiting import until
from tokenwire.app import App, build
from tokenwire.engines.engine import Engine
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.server import serving
from tokenwire.settings import Settings
from tokenwire.v1.chat_service_pb2_grpc import ChatServiceStub
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.model_service_pb2_grpc import ModelServiceStub
from tokenwire.v1.run_service_pb2_grpc import RunServiceStub
from tokenwire.v1.server_service_pb2_grpc import ServerServiceStub

if TYPE_CHECKING:
    from tokenwire.v1.chat_service_pb2_grpc import ChatServiceAsyncStub
    from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceAsyncStub
    from tokenwire.v1.model_service_pb2_grpc import ModelServiceAsyncStub
    from tokenwire.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from tokenwire.v1.server_service_pb2_grpc import ServerServiceAsyncStub


@dataclass(frozen=True)
class Service:
    """A running service and a channel to it."""

    app: App
    port: int
    channel: grpc.aio.Channel

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def generate(self) -> "GenerateServiceAsyncStub":
        return GenerateServiceStub(self.channel)

    @property
    def chat(self) -> "ChatServiceAsyncStub":
        return ChatServiceStub(self.channel)

    @property
    def runs(self) -> "RunServiceAsyncStub":
        return RunServiceStub(self.channel)

    @property
    def models(self) -> "ModelServiceAsyncStub":
        return ModelServiceStub(self.channel)

    @property
    def server(self) -> "ServerServiceAsyncStub":
        return ServerServiceStub(self.channel)


@asynccontextmanager
async def service(*engines: Engine, **settings: object) -> AsyncIterator[Service]:
    """Runs a service while the block runs. Fails if a scripted engine is still writing afterwards."""
    chosen: Sequence[Engine] = engines or [ScriptedEngine()]
    values = {"listen": "127.0.0.1:0", "drain_seconds": 0.0, "transport": CHOSEN} | settings
    app = build(Settings.model_validate(values), list(chosen))
    async with serving(app) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Service(app, port, channel)
    scripted = [engine for engine in chosen if isinstance(engine, ScriptedEngine)]
    await until(lambda: not any(engine.running for engine in scripted), "every engine is idle")
