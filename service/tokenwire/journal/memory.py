"""The journal in memory: what a process holds is lost with it."""

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.journal.log import RunLog


class MemoryJournal:
    """Keeps logs in memory. When a new run's share does not fit, finished runs lose their text, the oldest first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._shares: dict[str, int] = {}
        self._logs: dict[str, RunLog] = {}
        # Runs that have ended and still have their text, in the order of their ends.
        self._finished: dict[str, None] = {}

    @property
    def held(self) -> int:
        """Bytes reserved or held."""
        return self._held

    def open(self, run_id: str, share: int) -> RunLog:
        """Opens a run's log and reserves `share` bytes for it."""
        self.extend(run_id, share)
        log = self._logs[run_id] = RunLog()
        return log

    def extend(self, run_id: str, share: int) -> None:
        """Reserves `share` bytes in all for a run."""
        missing = self._held + share - self._shares.get(run_id, 0) - self._max_bytes
        if missing > 0 and missing > sum(self._logs[one].text_size for one in self._finished):
            # Giving text up would not help; nor would waiting, if the share is more than there is in all.
            ever = share <= self._max_bytes
            raise TokenwireError(
                Code.RESOURCE_EXHAUSTED,
                "JOURNAL_FULL",
                "the journal has no room for this run's answer; ask for fewer tokens" + (", or again later" * ever),
                retryable=ever,
                retry_after=1.0 if ever else None,
            )
        while self._held + share - self._shares.get(run_id, 0) > self._max_bytes:
            self._drop(next(iter(self._finished)))
        self._hold(run_id, share)

    def settle(self, run_id: str) -> None:
        """Replaces the share of a run that has ended by what it really holds."""
        log = self._logs[run_id]
        self._hold(run_id, log.size)
        if log.text_size:
            self._finished[run_id] = None

    def forget(self, run_id: str) -> None:
        """Drops a run's log."""
        self._finished.pop(run_id, None)
        self._logs.pop(run_id, None)
        self._held -= self._shares.pop(run_id, 0)

    def _drop(self, run_id: str) -> None:
        del self._finished[run_id]
        log = self._logs[run_id]
        log.drop()
        self._hold(run_id, log.size)

    def _hold(self, run_id: str, size: int) -> None:
        self._held += size - self._shares.get(run_id, 0)
        self._shares[run_id] = size
