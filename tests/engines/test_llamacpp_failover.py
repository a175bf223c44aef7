"""A stream goes on when its real llama.cpp child is killed: at another child, or at the same engine's next one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from engines.embedded import CLOCK, child_of, started
from tokenwire.dispatch.dispatcher import Dispatcher, Patience
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import Continuation, Dispatched, End
from tokenwire.domain.request import Message, Role, Sampling, Stopping, Submission
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.journal.log import RunLog
from tokenwire.journal.memory import MemoryJournal
from tokenwire.render.renderer import Renderer

pytestmark = [pytest.mark.llamacpp, pytest.mark.timeout(180)]

TOKENS = 60
GREEDY = Sampling(temperature=0.0)
ASKED = {
    "a prompt": Submission(
        prompt="Once upon a time", sampling=GREEDY, stopping=Stopping(max_tokens=TOKENS, ignore_eos=True)
    ),
    "a chat, its penalties and a stop string": Submission(
        messages=(Message(role=Role.USER, content="Count from one to thirty in words."),),
        sampling=Sampling(temperature=0.0, presence_penalty=0.3, frequency_penalty=0.2),
        stopping=Stopping(max_tokens=TOKENS, ignore_eos=True, stop=("\u00a7never",)),
    ),
}


class Home:
    """A dispatcher over engines, without journal or wire around it."""

    def __init__(self, *engines: LlamaCppEngine) -> None:
        self.engines = engines
        self.renderer = Renderer()
        self.fleet = Fleet(engines, now=CLOCK.monotonic, rng=Random(1))
        patience = Patience(first_token=60.0, stall=30.0, stop=2.0)
        self.dispatcher = Dispatcher(
            self.fleet,
            MemoryJournal(1 << 30),
            patience,
            self.renderer.render,
            rng=Random(2),
        )

    async def run(self, asked: Submission) -> Run:
        """Returns a run of the first engine, not begun."""
        engine = self.engines[0]
        (model,) = engine.status.models
        prompt = await self.renderer.render(asked, engine, model)
        return Run(
            id="run",
            tenant="local",
            model=model.name,
            submission=asked,
            prompt=prompt,
            engine=engine,
            log=RunLog(),
            share=1 << 30,
            grace=None,
            stop_seconds=2.0,
            received_at=CLOCK.monotonic(),
            clock=CLOCK,
        )

    async def execute(self, run: Run, child: int = 0, after: int = TOKENS // 3) -> End:
        """Brings a run to its end; kills a child once there are so many tokens."""
        task = asyncio.create_task(self.dispatcher.execute(run))
        while child and not (run.log.channels and run.log.channels[0].tokens[-1] >= after):
            assert run.end is None
            await run.log.changed()
        if child:
            os.kill(child, signal.SIGKILL)
        await task
        assert run.end is not None
        assert run.error is None, run.error
        return run.end


def told(run: Run) -> tuple[str, list[int]]:
    """Returns a run's text and tokens."""
    log = run.log.channel(Channel())
    assert log is not None
    return log.text.decode(), list(log.token_ids)


def how(run: Run) -> list[tuple[str, Continuation]]:
    """Returns where each attempt was, and how it went on."""
    markers = [marked.marker for marked in run.log.markers]
    return [(one.engine, one.continuation) for one in markers if isinstance(one, Dispatched)]


@dataclass(frozen=True)
class Pair:
    """Two engines, and the child of the first."""

    first: LlamaCppEngine
    child: int
    second: LlamaCppEngine


@pytest_asyncio.fixture
async def pair(cache: Path, tmp_path: Path) -> AsyncIterator[Pair]:
    """Returns two engines with children of their own."""
    async with started(cache, tmp_path / "first", restart_pause_min=30.0, restart_pause_max=60.0) as first:
        child = child_of(first)
        async with started(cache, tmp_path / "second") as second:
            second.name = "second"
            yield Pair(first, child, second)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
@pytest.mark.asyncio
async def test_a_stream_whose_child_is_killed_goes_on_at_another_child(asked: Submission, pair: Pair) -> None:
    alone = Home(pair.second)
    unbroken = await alone.run(asked)
    end = await alone.execute(unbroken)
    both = Home(pair.first, pair.second)
    broken = await both.run(asked)
    last = await both.execute(broken, pair.child)
    assert how(broken) == [("embedded", Continuation.FIRST), ("second", Continuation.BY_TOKENS)]
    assert told(broken) == told(unbroken)
    assert (last.choices, last.channels) == (end.choices, end.channels)
    assert last.usage.output_tokens == end.usage.output_tokens
    assert last.usage.prompt_tokens == end.usage.prompt_tokens


@pytest.mark.asyncio
async def test_the_only_engine_is_gone_on_with_when_its_next_child_is_up(cache: Path, tmp_path: Path) -> None:
    asked = ASKED["a prompt"]
    async with started(cache, tmp_path) as engine:
        home = Home(engine)
        unbroken = await home.run(asked)
        await home.execute(unbroken)
        broken = await home.run(asked)
        await home.execute(broken, child_of(engine))
    assert {name for name, _ in how(broken)} == {"embedded"}
    assert how(broken)[-1][1] is Continuation.BY_TOKENS
    assert told(broken) == told(unbroken)
