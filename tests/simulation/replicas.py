"""Schedules of several gateways on one shared journal: kills, take-overs, frozen ones, and a store that is away."""

import asyncio

from harness.model_server import ModelServer
from harness.model_store import ModelStore
from simulation import model
from simulation.client import WHOLE, Client
from simulation.clients import IMPATIENT_SECONDS, cancel, client, resubmit
from simulation.engine import JobFault
from simulation.gateway import Gateway
from simulation.requests import PROMPTS, Wanted, wanted
from simulation.world import World
from tokenwire.domain.context import Clock
from tokenwire.journal.journal import Journal
from tokenwire.journal.redis.journal import RedisJournal
from tokenwire.journal.redis.store import StoreError

LEASE_SECONDS = 10.0
# A store that does not answer for so long is down, and gateways go on without it.
PATIENCE_SECONDS = 1.0
# What happens to the gateways or the store of a schedule, apart from everything else.
FATES = ("calm", "calm", "kill", "kill", "kill", "freeze", "freeze", "drain", "outage", "loss", "both")
# Of runs whose writer died while the store did not have all of them.
_LOST = ("JOURNAL_LOST", "RUN_NOT_FOUND", "JOURNAL_UNAVAILABLE", "CURSOR_AHEAD")


class Cluster:
    """Some gateways on one store.

    Args:
        world: where they are.

    Attributes:
        fails: whether runs fail while the store is down, instead of going on without it.
    """

    def __init__(self, world: World) -> None:
        self.server = ModelServer(lambda: world.loop.time())
        self.gateways: list[Gateway] = []
        self._world = world
        self._started = 0
        self._latency = world.rng.choice((0.0, 0.002, 0.05))
        self.fails = world.rng.random() < 0.3
        self._loses_answers = world.rng.random() < 0.3

    async def begin(self) -> Gateway:
        """Starts one more gateway."""
        self._started += 1
        name = f"gateway{self._started}"
        gateway = Gateway(
            name, self._world.machines, self._journal, self._world.watch, self._world.note, self._world.retention
        )
        self._world.gateways.append(gateway)
        await gateway.start()
        self.gateways.append(gateway)
        return gateway

    def any(self) -> Gateway:
        """Returns one that a balancer would choose."""
        well = [one for one in self.gateways if one.up and not one.process.held]
        return self._world.rng.choice(well or self.gateways)

    def bury(self, gateway: Gateway) -> None:
        """Forgets one that has ended."""
        self.gateways.remove(gateway)
        self._world.gateways.remove(gateway)
        self._world.graves.append(gateway)
        gateway.dead = True

    async def _way(self, step: str) -> None:
        """The network to the store."""
        await asyncio.sleep(self._world.rng.random() * self._latency)
        if self._loses_answers and self._world.rng.random() < 0.003:
            self._world.note(f"{step} is lost on its way", "store step lost")
            raise StoreError("the connection broke")

    def _journal(self, clock: Clock) -> Journal:
        return RedisJournal(
            "",
            10_000_000,
            clock=clock,
            rng=self._world.rng,
            gateway_id=f"gateway{self._started}",
            lease_seconds=LEASE_SECONDS,
            outage="fail" if self.fails else "continue",
            outage_seconds=PATIENCE_SECONDS,
            store=ModelStore(self.server, self._way, self._way),
        )


async def play(world: World) -> dict[str, model.Asked]:
    """Two or three gateways, of which some die or stand still, or whose store does."""
    rng = world.rng
    all_ids = rng.random() < 0.6
    for number in range(2):
        machine = world.machine(f"engine{number}", PROMPTS, ids=all_ids or rng.random() < 0.5)
        machine.pace = rng.choice((0.02, 0.1, 0.5, 1.0))
        if rng.random() < 0.2:
            machine.faults.append(JobFault(kind=rng.choice(("cut", "kill")), after=rng.randrange(8), seconds=1.0))
    world.retention = 100.0
    cluster = Cluster(world)
    for _ in range(rng.choice((2, 2, 3))):
        await cluster.begin()
    fate = rng.choice(FATES)
    away = rng.choice((0.1, 0.5, 3.0, 15.0))
    world.lossy = fate == "both"
    # Without the store, or what it knew, nobody can tell whether another gateway has taken a request.
    world.alone = fate == "loss" or (fate == "outage" and away > PATIENCE_SECONDS and not cluster.fails)
    world.note(f"fate: {fate}")
    # Readers of other gateways count, too: else a run would end here before its time.
    grace = IMPATIENT_SECONDS if fate == "calm" else 30.0
    if fate == "calm":
        for machine in world.machines:
            machine.pace = 3.0
    requests = [wanted(rng, number, grace=grace) for number in range(rng.choice((1, 1, 2)))]
    async with asyncio.TaskGroup() as group:
        for one in requests:
            group.create_task(_request(world, one, cluster, fate))
        group.create_task(_happen(world, cluster, fate, away))
    return {one.id: one.asked for one in requests}


async def _happen(world: World, cluster: Cluster, fate: str, away: float) -> None:
    rng = world.rng
    await asyncio.sleep(rng.random() * rng.choice((0.1, 2.0, 10.0)))
    gateway = rng.choice(cluster.gateways)
    match fate:
        case "kill":
            for _ in range(rng.choice((1, 1, 2))):
                gateway = rng.choice(cluster.gateways)
                gateway.kill()
                cluster.bury(gateway)
                await asyncio.sleep(rng.choice((0.0, 1.0, 15.0)))
                await cluster.begin()
        case "freeze":
            # The others take its runs over, unless it is back before its leases are over.
            gateway.freeze(rng.choice((1.0, LEASE_SECONDS * 0.9, LEASE_SECONDS * 1.2, 25.0, 60.0)))
            await asyncio.sleep(70.0)
        case "drain":
            world.note(f"{gateway.name} drains", "gateway restarted")
            await gateway.stop(rng.choice((0.0, 1.0)))
            cluster.bury(gateway)
            await cluster.begin()
        case "outage" | "loss":
            await _outage(world, cluster, away, lost=fate == "loss")
        case "both":
            async with asyncio.TaskGroup() as group:
                group.create_task(_outage(world, cluster, rng.choice((1.0, 4.0)), lost=rng.random() < 0.5))
                await asyncio.sleep(rng.random())
                gateway.kill()
                cluster.bury(gateway)
            await cluster.begin()


async def _outage(world: World, cluster: Cluster, seconds: float, *, lost: bool) -> None:
    world.note(f"the store is away for {seconds:g} s", "store away")
    cluster.server.stop()
    await asyncio.sleep(seconds)
    if lost:
        world.note("the store has lost everything", "store empty")
        cluster.server.lose()
    world.note("the store is back")
    cluster.server.start()


async def _request(world: World, one: Wanted, cluster: Cluster, fate: str) -> None:
    rng, gateway = world.rng, cluster.any
    cancelled = rng.random() < (0.4 if fate == "calm" else 0.15)
    clients = [client(world, f"{one.id}-submits", one, gateway, calm=True)]
    async with asyncio.TaskGroup() as group:
        group.create_task(clients[0].submit(one.request))
        for number in range(rng.choice((0, 1, 1, 2))):
            clients.append(client(world, f"{one.id}-again{number}", one, gateway, calm=True))
            group.create_task(resubmit(world, clients[-1], one))
        if cancelled:
            group.create_task(cancel(world, one, gateway))
    for client_ in clients:
        _judge(world, client_, fate, fails=cluster.fails)


def _judge(world: World, client_: Client, fate: str, *, fails: bool) -> None:
    # A run that is being accepted when the drain begins ends before its first text.
    more = {"both": _LOST, "drain": ("SHUTTING_DOWN",)}.get(fate, ())
    allowed = (WHOLE, *more, *(("JOURNAL_UNAVAILABLE",) if fails and fate in ("outage", "loss") else ()))
    if client_.outcome not in allowed:
        world.problem(f"P4: {client_.name} could have gone on, and ended with {client_.outcome} ({fate})")
    if client_.outcome != WHOLE:
        world.note("a run was lost", "run lost")
