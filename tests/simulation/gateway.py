"""A simulated gateway: the real objects, wired as app.py wires them, in a process that can be killed or frozen."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from itertools import count
from typing import Any

from simulation.engine import Adapter, Machine
from simulation.loop import Process, VirtualLoop
from simulation.network import Line, ServerCall
from tokenwire.dispatch.dispatcher import Dispatcher, Patience
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.lifetimes import Lifetimes
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.context import LOCAL_TENANT, Clock, RequestContext
from tokenwire.interceptors.delivery import DeliveryOptions
from tokenwire.interceptors.guard import Guard
from tokenwire.interceptors.interceptor import stacked
from tokenwire.journal.journal import Journal
from tokenwire.render.renderer import Renderer
from tokenwire.rpc.generate import GenerateServicer
from tokenwire.rpc.reading import Reader
from tokenwire.rpc.requests import delivery_of
from tokenwire.rpc.runs import RunServicer
from tokenwire.rpc.submission import Loading, Submitter
from tokenwire.rpc.watch import StreamLimits
from tokenwire.transport.call import Kind

STALL_SECONDS = 5.0
FIRST_TOKEN_SECONDS = 10.0
GRACE_SECONDS = 30.0
# Time bounds the attempts, not their number: how many faults a run meets is up to chance.
FAILOVER = Failover(attempts=50)
EPOCH = 1_700_000_000.0

_layers = (Guard(), DeliveryOptions(delivery_of))


class WatchedRuns(Runs):
    """Tells of every run that this gateway gets to know."""

    watch: Callable[[Run], None]

    def _add(self, *args: Any, **named: Any) -> Run:
        run = super()._add(*args, **named)
        self.watch(run)
        return run


class Gateway:
    """One life of a gateway: after it was killed, another one takes its place.

    Args:
        name: its name.
        machines: the engines.
        make_journal: makes its journal.
        watch: is told of every run that it gets to know.
        note: is told what happens.
        retention: seconds for which runs are kept.
    """

    def __init__(
        self,
        name: str,
        machines: Sequence[Machine],
        make_journal: Callable[[Clock], Journal],
        watch: "Callable[[Gateway, Run], None]",
        note: Callable[..., None],
        retention: float = 300.0,
    ) -> None:
        self._retention = retention
        self.name = name
        self.process = Process(name)
        self.up = False
        self.dead = False
        self.lines: list[Line] = []
        self._machines = machines
        self._make_journal = make_journal
        self._watch = watch
        self._note = note
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop

    async def start(self) -> None:
        """Comes up, in its own process."""
        await self._inside(self._start())

    def call(self, line: Line, method: str, request: Any) -> None:
        """Brings a client's request here."""
        if not self.up:
            line.refuse()
            return
        self.lines = [one for one in self.lines if not one.over]
        self.lines.append(line)
        handler, kind = self._methods[method]
        data = request.SerializeToString()
        parse = type(request).FromString
        context = RequestContext(rpc_id=next(self._rpc_ids), tenant=LOCAL_TENANT, received_at=self._loop.time())
        call = ServerCall(line, method, kind, parse, context)
        line.serve(self.process, lambda call: handler(parse(data), call), call)

    def kill(self) -> None:
        """Dies between two callbacks: nothing of it runs any more."""
        self._note(f"{self.name} is killed", "gateway killed")
        self.up, self.dead, self.process.held = False, True, True
        for line in self.lines:
            line.reset()
        for machine in self._machines:
            machine.forget(self.process)

    def freeze(self, seconds: float) -> None:
        """Stands still for a while, and goes on as if nothing had been."""
        self._note(f"{self.name} is frozen for {seconds:g} s", "gateway frozen")
        self.process.held = True
        self._loop.call_later(seconds, self._thaw, context=None)

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Shuts down as server.py does."""
        await self._inside(self._stop(drain_seconds))

    def quiet(self) -> None:
        """Cancels all that is left of it."""
        self._loop.thaw(self.process)
        for task in self._loop.tasks(self.process):
            task.cancel()

    async def bury(self) -> None:
        """Lets what is left of it run out, and closes its files; it reaches nobody."""
        while tasks := self._loop.tasks(self.process):
            await asyncio.wait(tasks)
        await self._inside(self.journal.close())

    async def _inside(self, doing: Coroutine[Any, Any, None]) -> None:
        """Does something in the process, which may die in the middle of it: then this waits for ever."""
        task = self._loop.create_task(doing, context=self.process.context)
        done = self._loop.create_future()
        task.add_done_callback(partial(_set, done), context=Context())
        await done
        task.result()

    async def _start(self) -> None:
        clock = Clock(monotonic=self._loop.time, wall=lambda: EPOCH + self._loop.time())
        self.journal = self._make_journal(clock)
        self.engines = [Adapter(machine) for machine in self._machines]
        rng = random.Random(f"{self.name} {self._loop.time()}")
        self.fleet = Fleet(self.engines, now=self._loop.time, rng=rng)
        renderer = Renderer()
        patience = Patience(first_token=FIRST_TOKEN_SECONDS, stall=STALL_SECONDS)
        self._dispatcher = Dispatcher(self.fleet, self.journal, patience, renderer.render, FAILOVER, rng)
        lifetimes = Lifetimes(
            orphan_grace=GRACE_SECONDS,
            orphan_grace_max=60.0,
            retention=self._retention,
            max_duration=3600.0,
            cancelled_ids=3,
            stop=1.0,
        )
        numbers = (f"{self.name}-run{number}" for number in count(1))
        # The shared journal's ids say in which life of the store a run began; the others' are of no meaning.
        new_id = self.journal.new_id if self.journal.shared else lambda: next(numbers)
        self.runs = WatchedRuns(self._dispatcher, self.journal, lifetimes, clock, new_id=new_id)
        self.runs.watch = partial(self._watch, self)
        submitter = Submitter(self.fleet, self.runs, renderer, Loading(limit=60.0))
        reader = Reader(self.runs, StreamLimits())
        generate, runs = GenerateServicer(submitter, reader), RunServicer(self.runs, reader)
        self._rpc_ids = (f"{self.name}-rpc{number}" for number in count(1))
        self._methods = {
            "Generate": (stacked(generate.Generate, _layers), Kind.UNARY),
            "StreamGenerate": (stacked(generate.StreamGenerate, _layers), Kind.SERVER_STREAM),
            "AttachRun": (stacked(runs.AttachRun, _layers), Kind.SERVER_STREAM),
            "CancelRun": (stacked(runs.CancelRun, _layers), Kind.UNARY),
        }
        await self.fleet.start()
        await self.journal.start(self.runs)
        self.up = True
        self._note(f"{self.name} is up")

    async def _stop(self, drain_seconds: float) -> None:
        await self.runs.drain(drain_seconds)
        self.up = False
        for line in self.lines:
            line.reset()
            if line.task is not None:
                line.task.cancel()
        tasks = [line.task for line in self.lines if line.task is not None and not line.task.done()]
        if tasks:
            await asyncio.wait(tasks)
        await self.runs.close()
        await self._dispatcher.close()
        await self.fleet.close()
        await self.journal.close()

    def _thaw(self) -> None:
        if not self.dead:
            self._note(f"{self.name} thaws")
            self._loop.thaw(self.process)


def _set(done: "asyncio.Future[None]", _: object) -> None:
    if not done.done():
        done.set_result(None)
