"""Schedules in which clients and their lines fail, and nothing else."""

import asyncio
import random
from collections.abc import Callable, Sequence

from simulation import model
from simulation.client import WHOLE, Client, Leave
from simulation.gateway import Gateway
from simulation.network import Weather
from simulation.requests import PROMPTS, Wanted, wanted
from simulation.world import World
from tokenwire.journal.memory import MemoryJournal
from tokenwire.v1.run_service_pb2 import CancelRunRequest

# A run that waits for its readers for so long only has some that are never away for longer.
IMPATIENT_SECONDS = 8.0
# So long after a cancel the engine has stopped.
STOPPED_SECONDS = 2.0


async def play(world: World) -> dict[str, model.Asked]:
    """One gateway, one or two engines that do not fail; some requests with some readers each."""
    rng = world.rng
    for number in range(rng.choice((1, 2))):
        world.machine(f"engine{number}", PROMPTS, ids=rng.random() < 0.7)
    gateway = Gateway("gateway", world.machines, lambda clock: MemoryJournal(10_000_000), world.watch, world.note)
    await gateway.start()
    world.gateways.append(gateway)
    fates = [rng.choice(("",) * 6 + ("cancel", "orphan")) for _ in range(rng.choice((1, 1, 2)))]
    requests = [wanted(rng, number, grace=grace(rng, fate)) for number, fate in enumerate(fates)]
    async with asyncio.TaskGroup() as group:
        for one, fate in zip(requests, fates, strict=True):
            group.create_task(request(world, one, lambda: gateway, fate))
    return {one.id: one.asked for one in requests}


async def request(world: World, one: Wanted, gateway: Callable[[], Gateway], fate: str) -> None:
    """Some clients read one request's run; with a fate of `cancel` or `orphan` one of them ends it."""
    rng = world.rng
    clients = [client(world, f"{one.id}-submits", one, gateway, orphans=fate == "orphan")]
    async with asyncio.TaskGroup() as group:
        group.create_task(clients[0].submit(one.request))
        for number in range(rng.choice((0, 1, 1, 2, 3)) if fate != "orphan" else 0):
            clients.append(client(world, f"{one.id}-again{number}", one, gateway))
            group.create_task(resubmit(world, clients[-1], one))
        if fate == "cancel":
            group.create_task(cancel(world, one, gateway))
    for client_ in clients:
        judge(world, client_, fate)


def client(
    world: World,
    name: str,
    one: Wanted,
    gateway: Callable[[], Gateway],
    *,
    orphans: bool = False,
    calm: bool = False,
) -> Client:
    """Draws a client.

    Args:
        world: where it lives.
        name: its name.
        one: what it asks for.
        gateway: chooses a gateway.
        orphans: it stays away for longer than its run waits.
        calm: its lines do not break for long, and it does not fall asleep: other things do.
    """
    rng = world.rng
    if calm:
        return Client(
            world, name, one.id, gateway,
            weathers=weathers(rng, patient=False), leaves=leaves(rng, patient=False), pause=rng.choice((0.0, 0.0, 0.1)),
        )  # fmt: skip
    if orphans:
        return Client(
            world, name, one.id, gateway, leaves=[Leave(after=rng.randint(1, 6), seconds=200.0, rewind=False)]
        )
    patient = one.grace > IMPATIENT_SECONDS
    nap = rng.randint(1, 6) if rng.random() < 0.1 else 0
    return Client(
        world,
        name,
        one.id,
        gateway,
        weathers=[Weather(window=1)] if nap else weathers(rng, patient=patient),
        leaves=[] if nap else leaves(rng, patient=patient),
        pause=pause(rng),
        nap=nap,
    )


def judge(world: World, client: Client, fate: str) -> None:
    """Says whether a client ended as it had to."""
    allowed = {"": (WHOLE,), "cancel": (WHOLE,), "orphan": (WHOLE, "ORPHANED")}[fate]
    if client.outcome not in allowed:
        world.problem(f"P4: {client.name} could have gone on, and ended with {client.outcome}")
    if client.outcome == "ORPHANED":
        world.note("a run was orphaned", "run orphaned")


def grace(rng: random.Random, fate: str) -> float:
    """Draws for how long a run goes on without a reader."""
    return 2.0 if fate == "orphan" else rng.choice((30.0, IMPATIENT_SECONDS))


def weathers(rng: random.Random, *, patient: bool = True) -> list[Weather]:
    """Draws what the first calls of a client meet. At most one of them takes long, so that no run waits in vain."""
    drawn: list[Weather] = []
    long = patient and rng.random() < 0.3
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        kinds: Sequence[str] = ("cut", "cut", "dropped", "lost", "")
        kind, noticed = rng.choice(kinds), rng.choice((0.0, 0.01, 1.0))
        if long:
            kind, noticed, long = rng.choice(("black hole", "dropped", "cut")), rng.choice((5.0, 20.0)), False
        drawn.append(
            Weather(
                kind=kind,
                after=0 if rng.random() < 0.2 else rng.randint(1, 12),
                latency=latency(rng),
                window=rng.choice((1, 4, 64)),
                noticed=noticed,
            )
        )
    return drawn


def latency(rng: random.Random) -> float:
    """Draws how long a message takes at most."""
    return rng.choice((0.0, 0.0, 0.05, 0.5))


def leaves(rng: random.Random, *, patient: bool = True) -> list[Leave]:
    """Draws when a client goes away."""
    away = (0.0, 0.1, 3.0, 20.0) if patient else (0.0, 0.1, 1.0)
    return [
        Leave(after=rng.randint(1, 10), seconds=rng.choice(away), rewind=rng.random() < 0.5)
        for _ in range(rng.choice((0, 0, 1, 2)))
    ]


def pause(rng: random.Random) -> float:
    """Draws how long a client thinks about a message at most."""
    return rng.choice((0.0, 0.0, 0.0, 0.3))


async def resubmit(world: World, client: Client, one: Wanted) -> None:
    """Submits the same once more, or attaches to the run."""
    await asyncio.sleep(world.rng.choice((0.0, 0.0, 0.1, 1.0, 20.0)))
    world.note(f"{client.name} joins", "request submitted again")
    await client.submit(one.request)


async def cancel(world: World, one: Wanted, gateway: Callable[[], Gateway]) -> None:
    """Cancels a run, again and again until it is told that it was done; its engine has then stopped soon."""
    await asyncio.sleep(world.rng.choice((0.0, 0.05, 0.5, 2.0)))
    world.note(f"{one.id} is cancelled", "run cancelled")
    while True:
        line = world.call(gateway(), "CancelRun", CancelRunRequest(request_id=one.id))
        await line.read()
        if line.status is None:
            break
        if line.status.told and not line.status.retryable:
            world.problem(f"P5: the cancel ended with {line.status.code.name} {line.status.reason}")
            return
        await asyncio.sleep(0.5)
    if world.lossy or world.alone or any(one.process.held for one in world.gateways):
        # Who is frozen stops nothing; a cancel that the store does not know of reaches nobody else.
        return
    await asyncio.sleep(STOPPED_SECONDS)
    for machine in world.machines:
        if any(job.request_id == one.id for job in machine.jobs):
            world.problem(f"P5: {machine.name} still writes for {one.id}, which was cancelled")
