"""Drops calls on which nothing comes: a thread of its own, since whoever reads waits inside grpc."""

import threading
from collections.abc import Callable
from typing import Protocol


class Droppable(Protocol):
    """A call."""

    def cancel(self) -> object:
        """Drops it."""
        ...


class Watched:
    """A call that is watched while it is being read.

    Attributes:
        silent: whether the watchdog has dropped it.
    """

    def __init__(self, call: Droppable, seconds: float, clock: Callable[[], float]) -> None:
        self.silent = False
        self.seconds = seconds
        self._call = call
        self._clock = clock
        self._since: float | None = None

    def waiting(self) -> None:
        """Notes that the reader waits for the next event."""
        self._since = self._clock()

    def heard(self) -> None:
        """Notes that it waits no more."""
        self._since = None

    def due(self, now: float) -> float:
        """Returns the seconds until it is silent for too long; drops it if that is so."""
        since = self._since
        if since is None:
            return self.seconds
        left = since + self.seconds - now
        if left <= 0 and not self.silent:
            self.silent = True
            self._call.cancel()
        return left if left > 0 else self.seconds


class Watchdog:
    """Watches the calls of one client, in one thread that begins with the first of them.

    Args:
        clock: seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._watched: set[Watched] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, call: Droppable, seconds: float) -> Watched:
        """Begins to watch a call."""
        watched = Watched(call, seconds, self._clock)
        with self._changed:
            self._watched.add(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tokenwire watchdog", daemon=True)
                self._thread.start()
            self._changed.notify()
        return watched

    def shorten(self, watched: Watched, seconds: float) -> None:
        """Gives a call less time from now on."""
        with self._changed:
            watched.seconds = min(watched.seconds, seconds)
            self._changed.notify()

    def forget(self, watched: Watched) -> None:
        """Watches a call no more."""
        with self._changed:
            self._watched.discard(watched)

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        with self._changed:
            while not self._closed:
                now = self._clock()
                dues = [watched.due(now) for watched in self._watched]
                self._changed.wait(min(dues, default=None))
