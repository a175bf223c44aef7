"""One schedule: a function of its seed."""

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from simulation import checks, model
from simulation.loop import VirtualLoop
from simulation.world import World

# What a schedule does with its world; returns what each request asked for, by its id.
Play = Callable[[World], Awaitable[dict[str, model.Asked]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a schedule.

    Attributes:
        seed: its seed.
        problems: the promises that were broken.
        story: what happened.
        fired: how often each kind of fault came about.
    """

    seed: int
    problems: tuple[str, ...]
    story: tuple[tuple[float, str], ...]
    fired: Counter[str]

    def told(self, lines: int = 100) -> str:
        """Returns the problems, and the last things that happened."""
        last = "\n".join(f"{at:10.3f}  {text}" for at, text in self.story[-lines:])
        return "\n".join([f"seed {self.seed}:", *self.problems, last])


def run(play: Play, seed: int) -> Outcome:
    """Plays a schedule."""
    rng = random.Random(seed)
    loop = VirtualLoop(random.Random(rng.random()))  # type: ignore[abstract]
    world = World(seed, rng, loop)
    with world.closing:
        with _bugs() as bugs:
            try:
                loop.run(_played(world, play))
            except Exception as error:
                # Whatever it is, the seed and the story are wanted.
                world.problem("".join(traceback.format_exception(error)))
        problems = [*world.problems, *loop.failures, *bugs]
        story, fired = tuple(world.trace), Counter(world.fired)
        # What the dead say does not count.
        with _bugs():
            try:
                loop.run(_bury(world))
            except Exception as error:
                problems.append(f"what is left cannot be ended: {error}")
    return Outcome(seed=seed, problems=tuple(problems), story=story, fired=fired)


async def _played(world: World, play: Play) -> None:
    asked = await play(world)
    for problem in checks.read_problems(world, asked):
        world.problem(problem)
    await asyncio.sleep(world.retention + 60.0)
    for problem in checks.rest_problems(world):
        world.problem(problem)
    for gateway in world.gateways:
        await gateway.stop()


async def _bury(world: World) -> None:
    """Ends all that a schedule left: nothing, if it went well, but what the dead had begun."""
    ours = asyncio.current_task()
    left = [task for task in world.loop.tasks(None) if task is not ours]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
    every = [*world.graves, *world.gateways]
    for gateway in every:
        gateway.quiet()
    for gateway in every:
        await gateway.bury()


@contextmanager
def _bugs() -> Iterator[list[str]]:
    """Keeps the log quiet, and yields what is logged with an exception: a bug."""
    found: list[str] = []

    def keep(logger: object, level: str, entry: MutableMapping[str, Any]) -> str:
        error = entry.get("exc_info")
        if error:
            told = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
            found.append(f"logged: {entry['event']}\n{told or traceback.format_exc()}")
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [keep]
    try:
        yield found
    finally:
        processors[:] = before
