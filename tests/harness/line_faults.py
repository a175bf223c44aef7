"""What can go wrong with bytes between two ends of a line."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol


class Way(Enum):
    """Which way bytes go: to the server, or to the client."""

    UP = auto()
    DOWN = auto()


@dataclass(slots=True)
class Flow:
    """One way of one connection, as one fault sees it; `carried` bytes have come so far."""

    way: Way
    carried: int = 0


class CutError(Exception):
    """The connection breaks here."""


class LineFault(Protocol):
    """A fault.

    Attributes:
        name: for messages.
        fired: how often it had an effect.
    """

    name: str
    fired: int

    def through(self, data: bytes, flow: Flow) -> AsyncGenerator[bytes, None]:
        """Yields what becomes of bytes, which are the next ones after `flow.carried`. Raises CutError."""
        ...


class Delay:
    """Everything comes so many seconds later."""

    name = "delay"

    def __init__(self, seconds: float) -> None:
        self.fired = 0
        self._seconds = seconds

    async def through(self, data: bytes, flow: Flow) -> AsyncGenerator[bytes, None]:
        """See LineFault."""
        self.fired += 1
        await asyncio.sleep(self._seconds)
        yield data


class Slices:
    """Everything comes in slices of so many bytes."""

    name = "slices"

    def __init__(self, size: int = 1) -> None:
        self.fired = 0
        self._size = size

    async def through(self, data: bytes, flow: Flow) -> AsyncGenerator[bytes, None]:
        """See LineFault."""
        self.fired += len(data) > self._size
        for start in range(0, len(data), self._size):
            yield data[start : start + self._size]


class Bandwidth:
    """No more than so many bytes come through in a second."""

    name = "bandwidth"

    def __init__(self, bytes_per_second: float) -> None:
        self.fired = 0
        self._rate = bytes_per_second

    async def through(self, data: bytes, flow: Flow) -> AsyncGenerator[bytes, None]:
        """See LineFault."""
        self.fired += 1
        step = max(1, int(self._rate / 100))
        for start in range(0, len(data), step):
            part = data[start : start + step]
            await asyncio.sleep(len(part) / self._rate)
            yield part


class Cut:
    """A connection breaks once it has carried so many bytes one way; so many connections do, or all."""

    name = "cut"

    def __init__(self, at: int, way: Way = Way.DOWN, times: int | None = None) -> None:
        self.fired = 0
        self._at = at
        self._way = way
        self._times = times

    async def through(self, data: bytes, flow: Flow) -> AsyncGenerator[bytes, None]:
        """See LineFault."""
        room = self._at - flow.carried
        if flow.way is not self._way or len(data) < room or self.fired == self._times:
            yield data
            return
        self.fired += 1
        if room > 0:
            yield data[:room]
        raise CutError


class Garbage:
    """Bytes that nobody sent come after so many bytes one way, in so many connections, or all."""

    name = "garbage"

    def __init__(self, at: int, data: bytes, way: Way = Way.DOWN, times: int | None = None) -> None:
        self.fired = 0
        self._at = at
        self._data = data
        self._way = way
        self._times = times

    async def through(self, data: bytes, flow: Flow) -> AsyncGenerator[bytes, None]:
        """See LineFault."""
        room = self._at - flow.carried
        if flow.way is self._way and 0 <= room < len(data) and self.fired != self._times:
            self.fired += 1
            yield data[:room] + self._data
            data = data[room:]
        yield data


class BlackHole:
    """Nothing arrives on either side, and no connection ends: the network between them is gone."""

    name = "black hole"

    def __init__(self) -> None:
        self.fired = 0
        self.swallowed = 0

    async def through(self, data: bytes, flow: Flow) -> AsyncGenerator[bytes, None]:
        """See LineFault."""
        self.fired += 1
        self.swallowed += len(data)
        return
        yield data
