"""Properties are tried on the same examples every time, and time jumps: hours take no time."""

import asyncio
from collections.abc import Callable

import hypothesis
import pytest

from harness.clock import JumpingLoop


def pytest_configure(config: pytest.Config) -> None:
    """Loads hypothesis's own profile without chance and deadlines, unless another one is asked for."""
    if not config.getoption("--hypothesis-profile"):
        hypothesis.settings.load_profile("ci")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Puts the jumping loop in uvloop's place."""
    return {"jumping": JumpingLoop}
