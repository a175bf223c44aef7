"""How much all logs of a process may hold."""

from collections.abc import Callable
from typing import Protocol

from tokenwire.domain.errors import Code, TokenwireError


class Text(Protocol):
    """What a finished run holds, such as its log."""

    @property
    def size(self) -> int:
        """Bytes of memory held, roughly."""
        ...

    @property
    def text_size(self) -> int:
        """The part of `size` that giving the text up would free."""
        ...

    def drop(self) -> None:
        """Gives the text up."""
        ...


class Room:
    """Bytes reserved for runs. When a new share does not fit, finished runs lose their text, the oldest first.

    Args:
        max_bytes: the bound.
        on_drop: is told of a run whose text was given up.
    """

    def __init__(self, max_bytes: int, on_drop: Callable[[str], None] = lambda run_id: None) -> None:
        self._max_bytes = max_bytes
        self._on_drop = on_drop
        self._held = 0
        self._shares: dict[str, int] = {}
        self._logs: dict[str, Text] = {}
        # Runs that have ended and still have their text, in the order of their ends.
        self._finished: dict[str, None] = {}

    @property
    def held(self) -> int:
        """Bytes reserved or held."""
        return self._held

    def reserve(self, run_id: str, share: int) -> None:
        """Reserves `share` bytes in all for a run. Raises RESOURCE_EXHAUSTED JOURNAL_FULL."""
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

    def settle(self, run_id: str, log: Text) -> None:
        """Replaces the share of a run that has ended by what it really holds."""
        self._logs[run_id] = log
        self._hold(run_id, log.size)
        if log.text_size:
            self._finished[run_id] = None

    def shrink(self) -> None:
        """Gives text up, the oldest first, as long as there is some and more is held than the bound."""
        while self._held > self._max_bytes and self._finished:
            self._drop(next(iter(self._finished)))

    def free(self, run_id: str) -> None:
        """Gives a run's share back."""
        self._finished.pop(run_id, None)
        self._logs.pop(run_id, None)
        self._held -= self._shares.pop(run_id, 0)

    def _drop(self, run_id: str) -> None:
        del self._finished[run_id]
        log = self._logs[run_id]
        log.drop()
        self._hold(run_id, log.size)
        self._on_drop(run_id)

    def _hold(self, run_id: str, size: int) -> None:
        self._held += size - self._shares.get(run_id, 0)
        self._shares[run_id] = size
