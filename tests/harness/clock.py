"""Time that passes only when nothing else is to be done: waiting an hour takes no time, and is exact."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any

import pytest

# How long a loop that has no timer left waits for the world outside (grpc's poller in the leak gate).
OUTSIDE_SECONDS = 2.0


class _JumpingSelector(selectors.BaseSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = self._real.select(OUTSIDE_SECONDS)
            assert ready, "everything waits, and no timer is set: a deadlock"
            return ready
        ready = self._real.select(0)
        if not ready:
            self.now += max(timeout, 0.0)
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as every task waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._jumping.now


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Puts the jumping loop in uvloop's place, for a conftest that imports this."""
    return {"jumping": JumpingLoop}
