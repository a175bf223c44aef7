"""The life of a process: bring up, serve, drain, stop."""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

import structlog

from tokenwire.admin.readiness import Phase
from tokenwire.app import App
from tokenwire.engines.status import EngineState
from tokenwire.rpc.methods import SERVICES
from tokenwire.transport import descriptors

_log = structlog.get_logger()

# New container objects before a collection of the youngest; how many of those before one of the next generation, and
# of these before a full one.
GARBAGE_OBJECTS, GARBAGE_YOUNG, GARBAGE_OLD = 10_000, 50, 50
# How long another thread, mostly an exporter's, may keep the interpreter from the event loop. Python's own 5 ms are
# what a token would wait.
SWITCH_SECONDS = 0.0005


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[int]:
    """Serves while the block runs, and yields the port. Leaving drains: no new runs, then the running ones' time.

    The admin port is there before and after: probes see that the server starts, and that it drains.
    """
    async with app.admin or nullcontext(), _serving(app) as port:
        yield port


@asynccontextmanager
async def _serving(app: App) -> AsyncIterator[int]:
    dirty = asyncio.Event()
    for engine in app.fleet.engines:
        engine.status.watch(dirty.set)
    await app.health.set(_serving_names(app))
    try:
        # Before the first call, so that no request id that was kept is taken for a new one.
        await app.journal.start(app.runs)
        port = await app.transport.start(app.settings.listen)
        await app.fleet.start()
        watcher = asyncio.create_task(_tell_health(app, dirty), name="health")
        app.readiness.phase = Phase.SERVING
        try:
            yield port
        finally:
            app.readiness.phase = Phase.DRAINING
            watcher.cancel()
            await asyncio.wait([watcher])
            await app.health.shut_down()
            app.batches.drain()
            await app.runs.drain(app.settings.drain_seconds)
            await app.transport.stop(app.settings.flush_seconds)
    finally:
        await app.transport.stop(0)
        # Again, for a drain that was interrupted.
        await app.runs.drain(0)
        await app.batches.close()
        await app.runs.close()
        await app.journal.close()
        await app.fleet.close()


async def run(app: App, announce: Callable[[int], None]) -> None:
    """Serves until SIGTERM or SIGINT; a second signal stops at once. `announce` is told the port."""
    descriptors.take()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            _log.warning("stopping at once")
            task.cancel()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        async with serving(app) as port:
            _spare_the_collector()
            sys.setswitchinterval(SWITCH_SECONDS)
            announce(port)
            await asked.wait()
            _log.info("draining", seconds=app.settings.drain_seconds)
    except asyncio.CancelledError:
        # Ours, by the second signal: the process ends now.
        if not asked.is_set():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            # The process is over; one more signal must not spoil its exit code.
            signal.signal(number, signal.SIG_IGN)


def _spare_the_collector() -> None:
    """Lets Python's cyclic garbage collector run seldom, and pass over what the imports made.

    Calls and runs leave no cycles of ours behind (tests/wire/test_garbage.py), and a full collection stops all streams
    for 50 ms by what a process has after its start alone.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, GARBAGE_YOUNG, GARBAGE_OLD)


async def _tell_health(app: App, dirty: asyncio.Event) -> None:
    """Keeps what probes see up to date with the engines."""
    while True:
        await dirty.wait()
        dirty.clear()
        await app.health.set(_serving_names(app))


def _serving_names(app: App) -> dict[str, bool]:
    """Returns what serves: the process, each service, each engine."""
    generating = {"tokenwire.v1.GenerateService", "tokenwire.v1.ChatService", "tokenwire.v1.BatchService"}
    states = {engine.name: engine.status.state for engine in app.fleet.engines}
    # Calls wait for a model that is being loaded, so that counts as serving.
    able = any(state is not EngineState.UNAVAILABLE for state in states.values())
    services = {one.full_name: able or one.full_name not in generating for one in SERVICES}
    engines = {f"engine:{name}": state is EngineState.READY for name, state in states.items()}
    return {"": True} | services | engines
