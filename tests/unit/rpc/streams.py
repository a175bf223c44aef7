"""Calls and runs for tests of streams: a client that reads when it is told to, a run that a test writes."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tokenwire.dispatch.presence import Reading
from tokenwire.dispatch.writer import Writer
from tokenwire.domain.context import RequestContext
from tokenwire.domain.events import DetachReason, End, Envelope, RunError, Start, Timings, Usage
from tokenwire.domain.request import Delivery, Submission
from tokenwire.journal.log import RunLog
from tokenwire.transport.call import Call, Kind


class SlowCall(Call):
    """A call whose client takes so many seconds for a message; None: it reads no more."""

    def __init__(self, seconds: float | None = 0.0) -> None:
        self.method = "/test/Stream"
        self.kind = Kind.SERVER_STREAM
        self.context = RequestContext(rpc_id="rpc", tenant="local", received_at=0.0)
        self.delivery = Delivery()
        self.messages = 0
        self.parse: Callable[[bytes], Any] = bytes
        self.seconds = seconds
        self.got: list[tuple[float, Any]] = []

    @property
    def metadata(self) -> Mapping[str, str]:
        return {}

    @property
    def time_remaining(self) -> float | None:
        return None

    @property
    def events(self) -> list[Any]:
        """What was read, without the times."""
        return [message.event for _, message in self.got if isinstance(message, Envelope)]

    async def write(self, message: object) -> None:
        if self.seconds is None:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.seconds or 0)
        self.messages += 1
        self.got.append((asyncio.get_running_loop().time(), message))


@dataclass
class WrittenRun:
    """A run as a reader knows it, written by the test."""

    log: RunLog = field(default_factory=RunLog)
    id: str = "r1"
    grace: float | None = 0.0
    handed_over: DetachReason | None = None
    submission: Submission = field(default_factory=Submission)
    request_id: str = ""
    model: str = "m"

    def __post_init__(self) -> None:
        self.writer = Writer(self.log, self.elapsed_ms, 1, None)
        self.log.append(Start(run_id=self.id, request_id="", model="m", labels={}, retention_seconds=1), 0)

    @property
    def end(self) -> End | None:
        return self.log.end

    @property
    def error(self) -> RunError | None:
        return self.log.end.error if self.log.end else None

    def elapsed_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def finish(self, error: RunError | None = None) -> None:
        """Writes the end."""
        ends = self.log.channel_ends()
        end = End(choices=(), usage=Usage(), timings=Timings(), channels=ends, error=error)
        self.log.append(end, self.elapsed_ms())

    def hand_over(self, reason: DetachReason = DetachReason.DRAINING) -> None:
        """Sends the readers away."""
        self.handed_over = reason
        self.log.notify()


class Readings:
    """Counts readers, and knows for how long their run was asked to wait for them."""

    def __init__(self) -> None:
        self.now = 0
        self.detached: list[float] = []

    @contextmanager
    def reading(self, run: object) -> Iterator[Reading]:
        self.now += 1
        reading = Reading()
        try:
            yield reading
        finally:
            self.now -= 1
            self.detached.append(reading.detached)
