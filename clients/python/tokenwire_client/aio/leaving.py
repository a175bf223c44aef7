"""Work that is done to its end, whoever is cancelled meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Awaits work whose time is bounded; a cancellation is raised once it is done. The server must hear of a leave."""
    task = asyncio.get_running_loop().create_task(work, name="tokenwire leave")
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
