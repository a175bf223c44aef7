"""Waiting for something outside the event loop's sight, such as another process or the kernel."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Returns as soon as the condition holds; fails after a generous limit. For conditions that nothing can signal."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        await asyncio.sleep(0.005)
