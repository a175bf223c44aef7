"""A time in which the journal cannot be written."""

import asyncio
import errno
from collections.abc import Callable
from typing import Literal

import structlog

from tokenwire.domain.context import Clock
from tokenwire.domain.errors import Code, TokenwireError

_log = structlog.get_logger()

# Runs go on and are written later, or they fail.
OutagePolicy = Literal["continue", "fail"]
RETRY_SECONDS = 1.0
# While an outage lasts it is told again after this time.
TELL_SECONDS = 60.0


class Outage:
    """Begins with an error and lasts until something was written; that is tried again every second.

    Args:
        policy: what becomes of runs meanwhile.

    Attributes:
        lasts: whether there is one.
    """

    def __init__(self, policy: OutagePolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._retry: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told_at: float | None = None
        self._began_at = 0.0
        self.lasts = False

    def retries(self, retry: Callable[[], None]) -> None:
        """Says who tries to write."""
        self._retry = retry

    def check(self) -> None:
        """Raises UNAVAILABLE JOURNAL_UNAVAILABLE while nothing can be accepted."""
        if self.lasts and self._policy == "fail":
            raise TokenwireError(
                Code.UNAVAILABLE,
                "JOURNAL_UNAVAILABLE",
                "the journal cannot be written",
                retryable=True,
                retry_after=RETRY_SECONDS,
            )

    def begin(self, error: OSError) -> bool:
        """Notes that writing has failed; returns whether runs fail because of it."""
        now = self._clock.monotonic()
        if not self.lasts:
            self.lasts, self._began_at = True, now
        if self._told_at is None or now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            _log.error("the journal cannot be written", cause=said(error), policy=self._policy)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._again)
        return self._policy == "fail"

    def over(self) -> None:
        """Notes that writing works."""
        if self.lasts:
            self.lasts = False
            _log.warning("the journal is written again", seconds=round(self._clock.monotonic() - self._began_at, 3))

    def close(self) -> None:
        """Tries no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._timer = None
        if self.lasts and self._retry is not None:
            self._retry()


def said(error: OSError) -> str:
    """Returns an error's name, such as ENOSPC; its text may hold a path."""
    return errno.errorcode.get(error.errno or 0, "unknown")
