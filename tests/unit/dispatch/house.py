"""Runs, dispatcher and journal around one scripted engine, without any wire."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from random import Random
from typing import Any

from tokenwire.delivery.view import View
from tokenwire.dispatch.dispatcher import Dispatcher, Patience
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.lifetimes import Lifetimes
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.context import Clock, RequestContext
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import End, FinishReason
from tokenwire.domain.generation import ChoiceDone, Piece
from tokenwire.domain.request import FailoverPolicy, RunOptions, Submission
from tokenwire.engines.engine import Engine
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step
from tokenwire.engines.status import ModelInfo
from tokenwire.journal.memory import MemoryJournal
from tokenwire.render.renderer import Renderer

SHARE = 8192


def asked(request_id: str = "", prompt: str = "hi", **fields: Any) -> Submission:
    """Returns a request; `fields` are those of RunOptions, or groups of a Submission."""
    groups = {
        name: fields.pop(name) for name in ("limits", "stopping", "sampling", "constraint", "after") if name in fields
    }
    run = RunOptions(request_id=request_id, **fields)
    return Submission(prompt=prompt, run=run, fingerprint=sha256(prompt.encode()).digest(), **groups)


def say(text: str, choice: int = 0) -> Step:
    """Returns a step that writes a text."""
    return Emit((Piece(channel=Channel(choice), text=text, token_ids=(1,)),))


def stop(choice: int = 0, reason: FinishReason = FinishReason.STOP) -> Step:
    """Returns a step that ends a choice."""
    return Emit((ChoiceDone(choice=choice, finish_reason=reason),))


@dataclass
class House:
    """One engine and all that stands around it."""

    engine: ScriptedEngine = field(default_factory=ScriptedEngine)
    tenant: str = "local"
    journal_bytes: int = 1_000_000
    orphan_grace: float = 0.0
    retention: float = 300.0
    cancelled_ids: int = 3
    engines: Sequence[Engine] = ()
    failover: Failover = field(default_factory=lambda: Failover(policy=FailoverPolicy.NONE))

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock(monotonic=loop.time, wall=lambda: 1_700_000_000 + loop.time())
        self.journal = MemoryJournal(self.journal_bytes)
        self.fleet = Fleet(self.engines or [self.engine], now=loop.time, rng=Random(1))
        lifetimes = Lifetimes(
            orphan_grace=self.orphan_grace,
            orphan_grace_max=60.0,
            retention=self.retention,
            max_duration=3600.0,
            cancelled_ids=self.cancelled_ids,
            stop=1.0,
        )
        self.dispatcher = Dispatcher(
            self.fleet,
            self.journal,
            Patience(first_token=120.0, stall=30.0, stop=1.0),
            Renderer().render,
            self.failover,
            Random(2),
        )
        ids = count(1)
        self.runs = Runs(self.dispatcher, self.journal, lifetimes, self.clock, new_id=lambda: f"run{next(ids)}")

    @property
    def context(self) -> RequestContext:
        """An RPC of the house's tenant."""
        return RequestContext(rpc_id="rpc", tenant=self.tenant, received_at=self.clock.monotonic())

    async def submit(self, submission: Submission, tenant: str = "local") -> Run:
        """Finds or starts a request's run, in the steps of rpc/submission.py."""
        context = RequestContext(rpc_id="rpc", tenant=tenant, received_at=self.clock.monotonic())
        async with self.runs.claim(submission, context) as existing:
            if existing is not None:
                return existing
            route = await self.fleet.route("")
            prompt = await Renderer().render(submission, route.engine, ModelInfo(route.model))
            return await self.runs.accept(submission, prompt, route, SHARE, context)

    @contextmanager
    def read(self, run: Run) -> Iterator[View]:
        """Reads a run while the block runs."""
        with self.runs.reading(run):
            yield View(run.log)

    async def read_to_the_end(self, run: Run) -> str:
        """Reads a run until its end and returns the text of its first choice."""
        with self.read(run):
            await run.finished()
        return text_of(run)

    async def at_rest(self) -> None:
        """Forgets every run, and checks that nothing is held, and that each run ended exactly once."""
        for run in self.runs.list(self.tenant):
            ends = [marked.seq for marked in run.log.markers if isinstance(marked.marker, End)]
            assert ends == [run.log.head], "one end, and nothing after it"
        await self.runs.close()
        assert self.journal.held == 0
        assert self.engine.running == 0
        assert self.fleet.places.taken == 0
        assert self.fleet.places.waiting == 0


def text_of(run: Run, choice: int = 0) -> str:
    """Returns what was written to a choice's text."""
    log = run.log.channel(Channel(choice))
    return log.text.decode() if log else ""


def engine(*steps: Step, tokenizer: Any = None) -> ScriptedEngine:
    """Returns an engine that plays these steps for every job."""
    one = ScriptedEngine(script=lambda job: steps)
    if tokenizer is not None:
        one.tokenizer = tokenizer
    return one


async def text_comes(run: Run) -> None:
    """Waits until the run has text."""
    while not run.log.channels:
        await run.log.changed()
