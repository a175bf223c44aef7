"""Where a schedule is played: real engines, gateways, lines and clients, and the faults that hit them."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

from faults.conftest import redis_program
from faults.plan import Fault, Plan
from faults.processes import EngineProcess, Gateway, Home, free_port, stopped
from harness.fault_proxy import FaultProxy, fault_proxy
from harness.line_faults import Cut, Delay, Garbage, Slices
from harness.redis_server import RedisServer

STALL_SECONDS = 1.0
LEASE_SECONDS = 1.0
# More than what is told in one fault's time; and none of these faults is a run's own.
SETTINGS = {"stall_seconds": str(STALL_SECONDS), "attempts_max": "50", "heartbeat_seconds": "0.3"}


class Stage:
    """What one schedule has.

    Attributes:
        line: between the clients and the gateways.
        engines: two.
        gateways: one with a journal in files, or two with one in Redis.
        fired: how often each fault came about.
    """

    def __init__(self, home: Home, engine_lines: list[FaultProxy], engines: list[EngineProcess]) -> None:
        self.home = home
        self.engines = engines
        self.gateways: list[Gateway] = []
        self.fired: Counter[str] = Counter()
        self.line = FaultProxy(0)
        self.redis: RedisServer | None = None
        self.redis_line: FaultProxy | None = None
        self._engine_lines = engine_lines
        self._busy: set[object] = set()

    async def strike(self, fault: Fault) -> None:
        """Has a fault come about, and mends it; what is hit already is left alone."""
        match fault.name.split()[0]:
            case "engine":
                number = fault.victim % 2
                await self._once(self.engines[number], fault, self._engine_fault(fault, number))
            case "gateway":
                gateway = self.gateways[fault.victim % len(self.gateways)]
                await self._once(gateway, fault, self._gateway_fault(fault, gateway))
            case "redis":
                await self._once(self.redis, fault, self._redis_fault(fault))
            case _:
                await self._once(self.line, fault, self._line_fault(fault))

    async def _once(self, what: object, fault: Fault, striking: Coroutine[None, None, None]) -> None:
        if what in self._busy:
            striking.close()
            return
        self._busy.add(what)
        try:
            await striking
            self.fired[fault.name] += 1
        finally:
            self._busy.discard(what)

    async def _engine_fault(self, fault: Fault, number: int) -> None:
        engine, line = self.engines[number], self._engine_lines[number]
        match fault.name:
            case "engine killed":
                engine.kill()
                await asyncio.sleep(fault.seconds)
                engine.start()
                await engine.ready()
            case "engine frozen":
                with stopped(engine):
                    await asyncio.sleep(fault.seconds + STALL_SECONDS * (fault.victim % 3 == 0))
            case "engine line cut":
                line.add(Cut(fault.victim * 50, times=2))
                await line.cut()
                await asyncio.sleep(fault.seconds)
            case "engine line garbled":
                line.add(Garbage(fault.victim * 40, b"data: {]\n\n\x00", times=2))
                await asyncio.sleep(fault.seconds)
        line.mend()

    async def _gateway_fault(self, fault: Fault, gateway: Gateway) -> None:
        others = [one for one in self.gateways if one is not gateway and one not in self._busy]
        if others:
            self.line.lead(others[0].port)
        match fault.name:
            case "gateway killed" | "gateway killed twice":
                gateway.kill()
                await asyncio.sleep(fault.seconds)
                if fault.name.endswith("twice"):
                    gateway.start()
                    await asyncio.sleep(fault.seconds)
                    gateway.kill()
                gateway.start()
            case "gateway drained":
                gateway.send(signal.SIGTERM)
                await gateway.ended()
                gateway.start()
            case "gateway frozen":
                with stopped(gateway):
                    await self.line.cut()
                    await asyncio.sleep(fault.seconds + LEASE_SECONDS * 1.5 * (fault.victim % 2))
        await gateway.ready()

    async def _redis_fault(self, fault: Fault) -> None:
        assert self.redis is not None
        assert self.redis_line is not None
        if fault.name == "redis killed":
            self.redis.kill()
            await asyncio.sleep(fault.seconds)
            self.redis.start()
        else:
            await self.redis_line.cut()

    async def _line_fault(self, fault: Fault) -> None:
        match fault.name:
            case "client lines cut":
                await self.line.cut()
            case "client line slow":
                self.line.add(Slices(1) if fault.victim % 2 else Delay(0.02))
                await asyncio.sleep(fault.seconds)
                self.line.mend()
            case "client line black":
                self.line.black_hole()
                await asyncio.sleep(fault.seconds)
                self.line.mend()
                await self.line.cut()


@asynccontextmanager
async def stage(home: Home, plan: Plan) -> AsyncIterator[Stage]:
    """Sets a schedule's stage while the block runs."""
    async with AsyncExitStack() as stack:
        engines = [home.engine(milliseconds=2.0) for _ in range(2)]
        lines = [await stack.enter_async_context(fault_proxy(one.port, strict=False)) for one in engines]
        made = Stage(home, lines, engines)
        named = {name: f"vllm=http://{line.address}" for name, line in zip(("one", "two"), lines, strict=True)}
        if plan.kind == "redis":
            # It keeps what it was told, so that no loss of two at once is one that nothing could mend.
            made.redis = RedisServer(redis_program(), durable=True)
            made.redis.port = free_port()
            stack.callback(made.redis.close)
            made.redis.start()
            made.redis_line = await stack.enter_async_context(fault_proxy(made.redis.port, strict=False))
            journal = f"redis://127.0.0.1:{made.redis_line.port}/0"
            count, more = 2, {"lease_seconds": str(LEASE_SECONDS)}
        else:
            folder = home.folder / f"journal-{plan.seed}"
            journal, count, more = f"file:{folder}", 1, {}
        made.gateways = [home.gateway(dict(named), journal=journal, **SETTINGS, **more) for _ in range(count)]
        await home.start(*engines, *made.gateways)
        made.line = await stack.enter_async_context(fault_proxy(made.gateways[0].port, strict=False))
        try:
            yield made
        finally:
            for one in (*made.gateways, *engines):
                one.kill()
