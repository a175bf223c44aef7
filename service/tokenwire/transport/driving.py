"""Runs a coroutine without a task of its own: a task costs more than the write that it would wait for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Done = Callable[[BaseException | None], None]


def drive(coroutine: Coroutine[Any, Any, object], done: Done) -> None:
    """Runs a coroutine as far as it goes, and on from there whenever what it waits for is done.

    Args:
        coroutine: waits for futures alone. It has no current task, so timeouts and the like are not for it.
        done: is called once at its end, with what it raised, if anything; also before this returns.
    """

    def step(_: object = None) -> None:
        try:
            future = coroutine.send(None)
        except StopIteration:
            done(None)
        except (Exception, asyncio.CancelledError) as error:
            done(error)
        else:
            if future is None:
                # It only gives way.
                asyncio.get_running_loop().call_soon(step)
            else:
                # So a future knows that it is waited for, and by whom is no matter.
                future._asyncio_future_blocking = False  # noqa: SLF001 - tasks do the same
                future.add_done_callback(step)

    step()
