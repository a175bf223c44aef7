"""Schedules in which engines die, stall and talk nonsense, while clients come and go."""

import asyncio
import random
from collections.abc import Callable

from simulation import model
from simulation.client import WHOLE, Client
from simulation.clients import client, resubmit
from simulation.engine import JobFault
from simulation.gateway import STALL_SECONDS, Gateway
from simulation.requests import PROMPTS, Wanted, wanted
from simulation.world import World
from tokenwire.journal.memory import MemoryJournal
from tokenwire.v1.run_pb2 import FAILOVER_POLICY_NONE

# Nobody waits for so long.
FOREVER_SECONDS = 3000.0
# Of a run that may not go on elsewhere, and of one that cannot.
_LOST = ("ENGINE_LOST", "ENGINE_STALLED", "UPSTREAM_PROTOCOL", "ENGINE_UNREACHABLE", "FIRST_TOKEN_TIMEOUT",
         "ENGINE_OVERLOADED")  # fmt: skip


async def play(world: World) -> dict[str, model.Asked]:
    """One gateway, two or three engines that fail at some of their jobs."""
    rng = world.rng
    all_ids = rng.random() < 0.5
    for number in range(rng.choice((2, 2, 3))):
        machine = world.machine(f"engine{number}", PROMPTS, ids=all_ids or rng.random() < 0.5)
        # An engine that takes text alone could not tell how many of the tokens before had text.
        machine.merges = all_ids and rng.random() < 0.8
        machine.pace = rng.choice((0.02, 0.1, 0.5))
    gateway = Gateway("gateway", world.machines, lambda clock: MemoryJournal(10_000_000), world.watch, world.note)
    await gateway.start()
    world.gateways.append(gateway)
    fate = rng.choice(("",) * 8 + ("not again", "doomed"))
    requests = [wanted(rng, number, plain=rng.random() < 0.5) for number in range(rng.choice((1, 1, 2)))]
    _plan(world, fate, len(requests))
    if fate == "not again":
        for one in requests:
            one.request.run.failover = FAILOVER_POLICY_NONE
    async with asyncio.TaskGroup() as group:
        for one in requests:
            group.create_task(_request(world, one, lambda: gateway, fate))
    return {one.id: one.asked for one in requests}


def _plan(world: World, fate: str, requests: int) -> None:
    """Draws what goes wrong: no more than what a run can live with, unless it is doomed."""
    rng = world.rng
    if fate == "doomed":
        for machine in world.machines:
            machine.faults.append(JobFault(kind="kill", after=rng.choice((0, 3)), seconds=100.0))
        return
    silent = len(world.machines) - 1
    for _ in range(rng.choice((1, 2, 3, 4))):
        fault = _fault(rng)
        if fault.kind == "stall" and fault.after == 0 and fault.seconds == FOREVER_SECONDS:
            # An engine that gave no first token is not asked again.
            if not silent:
                continue
            silent -= 1
        rng.choice(world.machines).faults.append(fault)


def _fault(rng: random.Random) -> JobFault:
    kind = rng.choice(("kill", "kill", "cut", "cut", "stall", "stall", "stall", "garble", "refuse"))
    seconds = {
        "kill": rng.choice((0.0, 0.5, 4.0)),
        "stall": rng.choice((STALL_SECONDS * 0.8, FOREVER_SECONDS, FOREVER_SECONDS)),
        "refuse": rng.choice((0.0, 0.5, 2.0)),
    }.get(kind, 0.0)
    after = rng.choice((0, 1, 2, 3, 5, 8, 13))
    return JobFault(kind=kind, after=after, in_stop=after > 0 and rng.random() < 0.4, seconds=seconds)


async def _request(world: World, one: Wanted, gateway: Callable[[], Gateway], fate: str) -> None:
    clients = [client(world, f"{one.id}-submits", one, gateway)]
    async with asyncio.TaskGroup() as group:
        group.create_task(clients[0].submit(one.request))
        for number in range(world.rng.choice((0, 0, 1, 2))):
            clients.append(client(world, f"{one.id}-again{number}", one, gateway))
            group.create_task(resubmit(world, clients[-1], one))
    for client_ in clients:
        _judge(world, client_, fate)


def _judge(world: World, client_: Client, fate: str) -> None:
    allowed = (WHOLE,) if not fate else (WHOLE, *_LOST)
    if client_.outcome not in allowed:
        world.problem(f"P4: {client_.name} could have gone on, and ended with {client_.outcome}")
    if client_.outcome != WHOLE:
        world.note("a run failed", "run failed")
