"""What a journal offers: logs of runs, within a bound, for this process alone or for several."""

from dataclasses import dataclass
from typing import Protocol

from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A run that this process has not accepted itself.

    Attributes:
        record: the run as it was accepted.
        log: its events; goes on by itself while another process writes.
        ended_at: wall-clock seconds of its end, or None.
    """

    record: RunRecord
    log: RunLog
    ended_at: float | None = None


class Keeper(Protocol):
    """Who holds the runs of this process: is told by the journal what becomes of them elsewhere. Nothing here waits."""

    def restore(self, kept: Kept) -> None:
        """Takes a run that has ended and can still be read."""
        ...

    def take_over(self, kept: Kept) -> None:
        """Takes a run that nobody writes any more: from now on this process is its one writer, or ends it."""
        ...

    def lose(self, run_id: str) -> None:
        """Lets a run go that another process writes from now on; what was not committed does not count."""
        ...

    def fail(self, run_id: str) -> None:
        """Ends a run because its journal cannot be written, and the policy is not to go on without."""
        ...

    def cancel_here(self, run_id: str) -> None:
        """Ends a run as cancelled: a client asked another process to."""
        ...

    def unattended(self, run_id: str) -> None:
        """Says that the last reader at another process has left."""
        ...


class Journal(Protocol):
    """Keeps the logs of runs.

    Attributes:
        name: its kind: memory, file or redis.
        durable: whether runs outlive this process.
        shared: whether other processes read and write runs, too.
    """

    name: str
    durable: bool
    shared: bool

    @property
    def held(self) -> int:
        """Bytes of memory reserved or held in this process."""
        ...

    def new_id(self) -> str:
        """Makes the id of a new run; nobody can guess it."""
        ...

    async def start(self, keeper: Keeper) -> None:
        """Brings the journal up and hands over what was kept. Raises JournalError if it cannot."""
        ...

    async def open(self, record: RunRecord, replaces: str = "") -> RunLog:
        """Opens the log of a new run and reserves its share.

        Args:
            record: the run.
            replaces: the run that its request id has named until now and that has failed.

        Raises RESOURCE_EXHAUSTED JOURNAL_FULL if there is no room, RequestTakenError if the request id names a run of
        another process, UNAVAILABLE JOURNAL_UNAVAILABLE if nothing can be written and the policy is not to go on.
        """
        ...

    def extend(self, run_id: str, share: int) -> None:
        """Reserves `share` bytes in all for a run that outgrows its share. Raises RESOURCE_EXHAUSTED JOURNAL_FULL."""
        ...

    def settle(self, run_id: str, ended_at: float) -> None:
        """Replaces the share of a run that has ended by what it really holds. `ended_at` in wall-clock seconds."""
        ...

    def forget(self, run_id: str) -> None:
        """Drops a run's log; of one that other processes know, only what this one holds."""
        ...

    async def find(
        self, tenant: str, *, run_id: str = "", request_id: str = "", accepting: bool = False
    ) -> Kept | None:
        """Returns a run of another process, or None. Its log follows it until `forget`.

        Args:
            tenant: whose it is.
            run_id: its id, or
            request_id: the id of its request.
            accepting: the caller starts a run if there is none; so a journal that goes on while it cannot be reached
                answers None.

        Raises DATA_LOSS JOURNAL_LOST for a run whose journal was lost as a whole, UNAVAILABLE JOURNAL_UNAVAILABLE if it
        cannot be reached.
        """
        ...

    async def known(self, tenant: str) -> list[str]:
        """Returns the ids of a tenant's runs at other processes, newest first."""
        ...

    def attend(self, run_id: str, readers: int) -> None:
        """Tells other processes how many readers a run has here."""
        ...

    async def attended(self, run_id: str) -> bool:
        """Returns whether a run has readers at other processes."""
        ...

    async def cancel(self, run_id: str) -> None:
        """Asks the process that writes a run to cancel it."""
        ...

    async def hand_over(self, run_ids: list[str]) -> None:
        """Writes what is left of runs that this process no longer writes, and lets others, or a restart, take them."""
        ...

    async def close(self) -> None:
        """Writes what is left and lets go of everything."""
        ...


class JournalError(Exception):
    """The journal cannot be used; the message is for the operator."""


class RequestTakenError(Exception):
    """The request id names a run already, which another process accepted.

    Attributes:
        run_id: that run.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__("the request id names another run")
        self.run_id = run_id
