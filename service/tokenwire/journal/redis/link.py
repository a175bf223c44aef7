"""Whether the shared store answers."""

from collections.abc import Callable

from tokenwire.domain.context import Clock
from tokenwire.journal.redis.store import StoreError, StoreFullError

# Between attempts, in seconds: the first comes at once, the last pause is kept.
PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)


class Link:
    """Counts failures. The store is down once it has failed for some time, and at least twice in a row.

    Twice, each time asked after the last failure was known: a process that was stopped finds on waking that whatever it
    waited for took too long, which says nothing of the store.

    Args:
        clock: tells how long it has failed.
        patience: seconds of failure until it is down.
        on_down: is told that it is down.
        on_back: is told that it answers after a failure: it may have lost something.

    Attributes:
        down: whether it is down.
        full: whether the last failure was that it has no memory left.
        writes: attempts to write; `reads` those to listen, which may succeed where nothing can be written.
    """

    def __init__(
        self, clock: Clock, patience: float, on_down: Callable[[], None], on_back: Callable[[bool], None]
    ) -> None:
        self.down = False
        self.full = False
        self.patience = patience
        self._on_down = on_down
        self._on_back = on_back
        self.writes = Attempts(self, clock.monotonic)
        self.reads = Attempts(self, clock.monotonic)

    def judge(self) -> None:
        """Looks at the attempts again."""
        if not self.down and (self.writes.failing or self.reads.failing):
            self.down = True
            self._on_down()

    def back(self) -> None:
        """Says that an attempt succeeded after one that did not."""
        was_down = self.down
        self.down = self.writes.failing or self.reads.failing
        if not self.down:
            self.full = False
            self._on_back(was_down)


class Attempts:
    """Attempts of one kind."""

    def __init__(self, link: Link, now: Callable[[], float]) -> None:
        self.now = now
        self._link = link
        self._count = 0
        self._since = 0.0
        self._known = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last two have failed, and long enough after the first one began."""
        return self._count >= 2 and self._known - self._since >= self._link.patience

    def failed(self, begun: float, error: StoreError, since: float | None = None) -> float:
        """Counts a failure of what was begun at a time. Returns how long to wait before the next attempt.

        `since`: from when on it has failed, if not from its begin: one may listen for long before a connection breaks.
        """
        self._link.full = isinstance(error, StoreFullError)
        if not self._count:
            self._since = begun if since is None else since
        if not self._count or begun >= self._known:
            self._count += 1
            self._known = self.now()
        self._link.judge()
        return PAUSES[min(self._count, len(PAUSES)) - 1]

    def worked(self) -> None:
        """Counts a success."""
        if self._count:
            self._count = 0
            self._link.back()
