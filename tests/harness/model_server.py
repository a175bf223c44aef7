"""What the shared store's server holds, as a model in memory: see model_store.py."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tokenwire.journal.redis.store import Entry, Message, Takeovers


@dataclass
class StoredRun:
    """A run; times are the server's."""

    record: bytes
    owner: str
    epoch: int
    takeovers: Takeovers
    lease_until: float
    keep_until: float
    head: int = 0
    ended_at: float | None = None
    cancelled: bool = False
    log: list[Entry] = field(default_factory=list)
    readers: dict[str, float] = field(default_factory=dict)


@dataclass
class Claim:
    """What a request id names."""

    run_id: str
    until: float
    created: bool


class ModelServer:
    """The server.

    Args:
        now: its clock, in seconds.

    Attributes:
        up: whether it answers.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.up = True
        self._now = now
        self._waiters: dict[asyncio.Future[None], None] = {}
        self.lose()

    def now(self) -> float:
        """The server's time, in milliseconds as the real one's, told in seconds."""
        return round(self._now() * 1000) / 1000

    def stop(self) -> None:
        """From now on nothing is answered."""
        self.up = False
        self.changed()

    def start(self) -> None:
        """Comes up again, with what it had, unless that was lost."""
        self.up = True
        self.started_at = self.now()

    def lose(self) -> None:
        """Loses everything."""
        self.started_at = self.now()
        self.incarnation: tuple[str, float] | None = None
        self.runs: dict[str, StoredRun] = {}
        self.claims: dict[tuple[str, str], Claim] = {}
        self.live: dict[str, float] = {}
        self.index: dict[str, dict[str, tuple[float, float]]] = {}
        self.inboxes: dict[str, list[Message]] = {}
        self.released: list[Message] = []

    def run(self, name: str) -> StoredRun | None:
        """Returns a run that is not forgotten."""
        run = self.runs.get(name)
        if run is not None and run.keep_until <= self.now():
            del self.runs[name]
            return None
        return run

    def changed(self) -> None:
        """Wakes those that listen."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self, seconds: float) -> None:
        """Waits for something to listen to."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            self._waiters.pop(waiter, None)
