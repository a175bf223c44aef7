"""For all tests: uvloop, the same examples every time, and the leak gate.

After each asyncio test, tasks and file descriptors are back to where they were.
"""

import asyncio
import gc
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

# With it, gRPC starts threads in a child between fork and exec, where they crash now and then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
import hypothesis
import pytest
import pytest_asyncio
import uvloop

from harness.waiting import until


def pytest_configure(config: pytest.Config) -> None:
    """Properties are tried on the same examples every time, without a deadline, unless another profile is asked for."""
    if not config.getoption("--hypothesis-profile"):
        hypothesis.settings.load_profile("ci")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The product runs on uvloop, and so do its tests."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True, scope="session")
def modules_are_not_searched_for_garbage() -> None:
    """Makes the leak gate's collections cheap: what exists before the first test stays anyway."""
    gc.collect()
    gc.freeze()


def open_files() -> dict[str, str]:
    """Returns what each file descriptor of this process is."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[path.name] = str(path.readlink())
    # uvloop keeps one of these for its children.
    return {name: what for name, what in found.items() if what != "/dev/null"}


GATES_A_FREEZE = 10
_gates = itertools.count()


@pytest_asyncio.fixture
async def async_leak_gate() -> AsyncIterator[None]:
    # uvloop opens a socket pair for signals and children with the first of them.
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, lambda: None)
    loop.remove_signal_handler(signal.SIGUSR2)
    # grpc opens its poller with its first object and a socket pair for each event loop it meets: all before counting,
    # and kept open until the end.
    grpc.aio.init_grpc_aio()
    await grpc.aio.insecure_channel("127.0.0.1:1").close()
    gc.collect()
    if next(_gates) % GATES_A_FREEZE == 0:
        # What pytest keeps of thousands of tests would be searched again and again.
        gc.freeze()
    files = open_files()
    tasks = asyncio.all_tasks()
    yield
    await until(lambda: asyncio.all_tasks() <= tasks | {asyncio.current_task()}, "no task is left")
    # An error that a test has caught holds its call, and that its poller.
    gc.collect()
    # The kernel and grpc's threads close sockets a little after they were told to.
    try:
        await until(lambda: len(open_files()) <= len(files), "no file descriptor is left")
    except AssertionError:
        left = {name: what for name, what in open_files().items() if files.get(name) != what}
        raise AssertionError(f"file descriptors are left: {left}") from None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the leak gate around all other fixtures of every asyncio test."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("asyncio") is not None:
            item.fixturenames.insert(0, "async_leak_gate")
            if "shared_child" in item.fixturenames:
                # Before the gate counts: the child's pipes stay open.
                item.fixturenames.insert(0, "shared_child")
