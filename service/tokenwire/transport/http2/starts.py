"""When calls begin: one a turn of the event loop."""

import asyncio
from collections import deque
from typing import Protocol


class Starting(Protocol):
    """A call that is about to begin."""

    def run(self, request: object) -> None:
        """Begins it."""
        ...


class Starts:
    """Begins calls in the order in which they came, one a turn of the loop.

    To set up a call costs as much as dozens of tokens. Of a thousand that come in one segment each would otherwise
    begin before the next token of those that are served already.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Starting, object]] = deque()

    def add(self, call: Starting, request: object) -> None:
        """Lets a call begin when it is its turn."""
        self._waiting.append((call, request))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        call, request = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        call.run(request)
