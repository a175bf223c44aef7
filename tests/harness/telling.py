"""Engines tell what they write; tests like to ask for it read by read, and to write engines the other way round."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tokenwire.domain.generation import Generated, Job, Tell
from tokenwire.engines.engine import Engine


async def told_by(engine: Engine, job: Job) -> AsyncGenerator[list[Generated], None]:
    """Yields what an engine tells, one list a read. Closing the generator cancels the engine's work."""
    batches: list[list[Generated]] = []
    changed = asyncio.Event()

    def tell(batch: list[Generated]) -> None:
        batches.append(batch)
        changed.set()

    work = asyncio.create_task(engine.generate(job, tell), name="what an engine tells")
    work.add_done_callback(lambda _: changed.set())
    try:
        while batches or not work.done():
            while batches:
                yield batches.pop(0)
            if not work.done():
                changed.clear()
                await changed.wait()
        work.result()
    finally:
        if not work.done():
            work.cancel()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()


async def tell_all(batches: AsyncGenerator[list[Generated], None], tell: Tell) -> None:
    """Tells what a generator yields, and closes it."""
    async with aclosing(batches):
        async for batch in batches:
            tell(batch)
