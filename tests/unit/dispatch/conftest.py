"""The tests in this folder run in time that jumps: hours take no time."""

import asyncio
import gc
from collections.abc import Callable

import pytest

from harness.clock import JumpingLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Puts the jumping loop in uvloop's place."""
    return {"jumping": JumpingLoop}


@pytest.fixture(autouse=True, scope="session")
def modules_are_not_searched_for_garbage() -> None:
    """Makes the leak gate's collections cheap: what exists before the first test stays anyway."""
    gc.collect()
    gc.freeze()
