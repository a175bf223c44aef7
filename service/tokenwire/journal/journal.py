"""What a journal offers: room for runs' logs, within a bound."""

from typing import Protocol

from tokenwire.journal.log import RunLog


class Journal(Protocol):
    """Keeps the logs of runs."""

    def open(self, run_id: str, share: int) -> RunLog:
        """Opens a run's log and reserves `share` bytes for it. Raises RESOURCE_EXHAUSTED JOURNAL_FULL."""
        ...

    def extend(self, run_id: str, share: int) -> None:
        """Reserves `share` bytes in all for a run that outgrows its share. Raises RESOURCE_EXHAUSTED JOURNAL_FULL."""
        ...

    def settle(self, run_id: str) -> None:
        """Replaces the share of a run that has ended by what it really holds."""
        ...

    def forget(self, run_id: str) -> None:
        """Drops a run's log."""
        ...
