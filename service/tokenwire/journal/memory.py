"""The journal in memory: what a process holds is lost with it."""

import secrets

from tokenwire.journal.journal import Keeper, Kept
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord
from tokenwire.journal.room import Room


class LocalJournal:
    """What a journal that no other process reads answers to questions about them."""

    shared = False

    def new_id(self) -> str:
        """Makes the id of a new run."""
        return f"run_{secrets.token_hex(12)}"

    async def find(
        self, tenant: str, *, run_id: str = "", request_id: str = "", accepting: bool = False
    ) -> Kept | None:
        """Nobody else has runs."""
        return None

    async def known(self, tenant: str) -> list[str]:
        """Nobody else has runs."""
        return []

    def attend(self, run_id: str, readers: int) -> None:
        """Nobody else asks."""

    async def attended(self, run_id: str) -> bool:
        """Nobody else reads."""
        return False

    async def cancel(self, run_id: str) -> None:
        """Nobody else writes."""


class MemoryJournal(LocalJournal):
    """Keeps logs in memory, within a bound in bytes."""

    name = "memory"
    durable = False

    def __init__(self, max_bytes: int) -> None:
        self._room = Room(max_bytes)
        self._logs: dict[str, RunLog] = {}

    @property
    def held(self) -> int:
        """Bytes reserved or held."""
        return self._room.held

    async def start(self, keeper: Keeper) -> None:
        """Nothing was kept."""

    async def open(self, record: RunRecord, replaces: str = "") -> RunLog:
        """Opens a run's log and reserves its share."""
        self._room.reserve(record.run_id, record.share)
        log = self._logs[record.run_id] = RunLog()
        return log

    def extend(self, run_id: str, share: int) -> None:
        """Reserves `share` bytes in all for a run."""
        self._room.reserve(run_id, share)

    def settle(self, run_id: str, ended_at: float) -> None:
        """Replaces the share of a run that has ended by what it really holds."""
        self._room.settle(run_id, self._logs[run_id])

    def forget(self, run_id: str) -> None:
        """Drops a run's log."""
        self._logs.pop(run_id, None)
        self._room.free(run_id)

    async def hand_over(self, run_ids: list[str]) -> None:
        """Nobody can take anything."""

    async def close(self) -> None:
        """Nothing to let go."""
