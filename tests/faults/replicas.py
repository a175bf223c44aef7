"""Several gateways before one Redis, each with an engine of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from faults.processes import QUICK, EngineProcess, Gateway, Home
from harness.fault_proxy import FaultProxy, fault_proxy
from harness.redis_server import RedisServer
from tokenwire_client import AsyncClient, Policy

LEASE_SECONDS = 0.8


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """Two gateways and what is around them.

    Attributes:
        a: a gateway, with the engine `one`, and no other.
        b: another gateway, with the engine `two`.
        balancer: stands before `a`, until it is told to lead to `b`.
        client: talks to the balancer.
    """

    a: Gateway
    b: Gateway
    one: EngineProcess
    two: EngineProcess
    balancer: FaultProxy
    client: AsyncClient

    def move(self) -> None:
        """Has the balancer send new connections to `b`; those of a gateway that was killed are over."""
        self.balancer.lead(self.b.port)


@asynccontextmanager
async def replicas(
    home: Home, redis: RedisServer, *, hold: int | None = None, policy: Policy = QUICK, url: str = "", **settings: str
) -> AsyncIterator[Replicas]:
    """Runs two gateways while the block runs; `hold` is for the engine of the first, `url` its own way to Redis."""
    one, two = home.engine(hold=hold), home.engine()
    given = {"lease_seconds": str(LEASE_SECONDS)} | settings
    a = home.gateway({"one": one}, journal=url or redis.url, **given)
    b = home.gateway({"two": two}, journal=redis.url, **given)
    await home.start(one, two, a, b)
    async with fault_proxy(a.port) as balancer, AsyncClient(balancer.address, policy=policy) as client:
        yield Replicas(a=a, b=b, one=one, two=two, balancer=balancer, client=client)
