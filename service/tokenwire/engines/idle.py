"""Connections to an engine that wait for the next stream."""

import asyncio

from tokenwire.engines.connections import KEEPALIVE_SECONDS
from tokenwire.engines.exchange import Exchange

# A connection is a file descriptor on both sides; more streams than this do not end and begin within its time.
MOST_IDLE = 64
# Where a name or an address stands for several servers, new ones get their share, and old ones lose theirs.
LIFE_SECONDS = 60.0


class IdleConnections:
    """Keeps connections from one stream to the next, of one engine and on one event loop.

    Args:
        most: how many there are at most.
        seconds: how long each of them waits.
        life: seconds after which a connection is kept no more, however busy it is.
    """

    def __init__(self, most: int = MOST_IDLE, seconds: float = KEEPALIVE_SECONDS, life: float = LIFE_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self._life = life
        # Since when each of them waits, the longest first.
        self._since: dict[Exchange, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._since)

    def take(self) -> Exchange | None:
        """Returns the connection that came last: of a few that are needed the others end."""
        for one in reversed(self._since):
            if one.ready:
                del self._since[one]
                return one
        return None

    def keep(self, one: Exchange) -> None:
        """Ends what a connection is used for, and keeps it if it can be used again."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        room = len(self._since) < self._most and not self._closed
        if not (one.release() and room and now < one.made_at + self._life):
            one.close()
            return
        self._since[one] = now
        if self._timer is None:
            # One for all: it comes when the first of them may have to go.
            self._timer = loop.call_later(self._seconds, self._expire)

    def forget(self, one: Exchange) -> None:
        """Says that a connection has ended."""
        self._since.pop(one, None)

    def close(self) -> None:
        """Closes every connection; from now on none is kept."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._since:
            self._since.popitem()[0].close()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for one, since in list(self._since.items()):
            if since + self._seconds > now:
                self._timer = loop.call_at(since + self._seconds, self._expire)
                break
            del self._since[one]
            one.close()
