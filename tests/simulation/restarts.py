"""Schedules in which the gateway dies or restarts, with the journal in files."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from simulation import model
from simulation.client import WHOLE, Client
from simulation.clients import cancel, client, resubmit
from simulation.disk import MortalDisk
from simulation.engine import JobFault
from simulation.gateway import Gateway
from simulation.requests import PROMPTS, Wanted, wanted
from simulation.world import World
from tokenwire.domain.context import Clock
from tokenwire.journal.file.journal import FileJournal
from tokenwire.journal.file.tape import SyncPolicy


class Site:
    """One gateway after the other on one journal.

    Args:
        world: where it is.
        root: a folder for the journals; each life has its own copy, so that nothing dead can write to it.
    """

    def __init__(self, world: World, root: Path) -> None:
        self._world = world
        self._root = root
        self._fsync: SyncPolicy = world.rng.choice(("never", "never", "always"))
        self._segment_bytes = world.rng.choice((1500, 20_000))
        self._lives = 0
        self._died: asyncio.Event = asyncio.Event()
        self.gateway: Gateway
        self.disk: MortalDisk

    async def begin(self) -> None:
        """Starts the next life on the folder that is there; again, if it dies in the middle of that."""
        while True:
            self._lives += 1
            self._died.clear()
            self.disk = MortalDisk(self._world.rng, self._die)
            name = f"gateway{self._lives}"
            self.gateway = Gateway(name, self._world.machines, self._journal, self._world.watch, self._world.note)
            self._world.gateways.append(self.gateway)
            if self._lives > 1 and self._world.rng.random() < 0.15:
                self.disk.dies_at(self._world.rng.randrange(3))
            if await self._survives(self.gateway.start()):
                return
            self._world.note("it died while it started", "gateway died at its start")
            self._bequeath()

    async def die_sometime(self) -> None:
        """Waits until this life has ended, by a kill or a restart, and begins the next one."""
        rng = self._world.rng
        match rng.choice(("write", "write", "time", "drain")):
            case "write":
                self.disk.dies_at(rng.randrange(40))
                try:
                    async with asyncio.timeout(60.0):
                        await self._died.wait()
                except TimeoutError:
                    self.disk.spare()
                    return
                self._world.note("in the middle of a write", "gateway killed in a write")
            case "time":
                await asyncio.sleep(rng.random() * rng.choice((0.5, 5.0)))
                self.gateway.kill()
            case "drain":
                await asyncio.sleep(rng.random() * rng.choice((0.5, 5.0)))
                self._world.note(f"{self.gateway.name} drains", "gateway restarted")
                if rng.random() < 0.3:
                    self.disk.dies_at(rng.randrange(6))
                if not await self._survives(self.gateway.stop(rng.choice((0.0, 0.0, 1.0)))):
                    self._world.note("it died while it stopped", "gateway died at its stop")
        down = rng.choice((0.0, 0.5, 8.0))
        self._bequeath()
        await asyncio.sleep(down)
        await self.begin()

    async def _survives(self, doing: Coroutine[Any, Any, None]) -> bool:
        """Lets the gateway do something; returns whether it did not die meanwhile."""
        task, died = asyncio.create_task(doing), asyncio.create_task(self._died.wait())
        await asyncio.wait((task, died), return_when=asyncio.FIRST_COMPLETED)
        self.disk.spare()
        died.cancel()
        if not self._died.is_set():
            await task
            return True
        task.cancel()
        await asyncio.wait([task])
        return False

    def _bequeath(self) -> None:
        old = self.gateway
        if not old.dead:
            old.dead = True
        self._world.gateways.remove(old)
        self._world.graves.append(old)
        power_lost = self._fsync == "always" and self._world.rng.random() < 0.7
        if power_lost:
            self._world.note("the machine loses its power", "power lost")
        self.disk.copy(self._folder(self._lives), self._folder(self._lives + 1), power_lost=power_lost)

    def _die(self) -> None:
        self.gateway.kill()
        self._died.set()

    def _folder(self, life: int) -> Path:
        return self._root / str(life)

    def _journal(self, clock: Clock) -> FileJournal:
        folder = self._folder(self._lives)
        folder.mkdir(exist_ok=True)
        return FileJournal(
            folder,
            10_000_000,
            clock=clock,
            fsync=self._fsync,
            segment_bytes=self._segment_bytes,
            random=self._world.rng.randbytes,
            disk=self.disk,
        )


async def play(world: World) -> dict[str, model.Asked]:
    """One gateway that is killed or restarted up to three times, two engines of which some answers fail."""
    rng = world.rng
    all_ids = rng.random() < 0.6
    for number in range(2):
        machine = world.machine(f"engine{number}", PROMPTS, ids=all_ids or rng.random() < 0.5)
        machine.pace = rng.choice((0.02, 0.1, 0.5))
        if rng.random() < 0.3:
            machine.faults.append(JobFault(kind=rng.choice(("cut", "kill")), after=rng.randrange(8), seconds=1.0))
    site = Site(world, world.folder())
    await site.begin()
    requests = [wanted(rng, number) for number in range(rng.choice((1, 1, 2)))]
    async with asyncio.TaskGroup() as group:
        for one in requests:
            group.create_task(_request(world, one, lambda: site.gateway))
        for _ in range(rng.choice((1, 1, 2, 3))):
            await site.die_sometime()
    return {one.id: one.asked for one in requests}


async def _request(world: World, one: Wanted, gateway: Callable[[], Gateway]) -> None:
    rng = world.rng
    fate = rng.choice(("",) * 6 + ("cancel",))
    clients = [client(world, f"{one.id}-submits", one, gateway, calm=True)]
    async with asyncio.TaskGroup() as group:
        group.create_task(clients[0].submit(one.request))
        for number in range(rng.choice((0, 1, 1, 2))):
            clients.append(client(world, f"{one.id}-again{number}", one, gateway, calm=True))
            group.create_task(resubmit(world, clients[-1], one))
        if fate == "cancel":
            group.create_task(cancel(world, one, gateway))
    for client_ in clients:
        _judge(world, client_)


def _judge(world: World, client_: Client) -> None:
    if client_.outcome != WHOLE:
        world.problem(f"P4: {client_.name} could have gone on, and ended with {client_.outcome}")
