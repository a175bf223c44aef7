"""Points in time for many, at the cost of one timer of the event loop."""

import asyncio
import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
# So many that were cancelled may lie about, however few the others are.
CANCELLED_MAX = 64


class Deadline(Generic[T]):
    """One of them."""

    __slots__ = ("_deadlines", "_of")

    def __init__(self, deadlines: "Deadlines[T]", of: T) -> None:
        self._deadlines = deadlines
        self._of: T | None = of

    def cancel(self) -> None:
        """Makes it pass unnoticed, and lets go of whose it is."""
        if self.take() is not None:
            self._deadlines.sweep()

    def cancelled(self) -> bool:
        """Whether it was cancelled, or is over."""
        return self._of is None

    def take(self) -> T | None:
        """Ends it and returns whose it is; None if it has ended."""
        of, self._of = self._of, None
        if of is not None:
            self._deadlines.live -= 1
        return of


class Deadlines(Generic[T]):
    """Calls back when somebody's time has come, in the order of the times.

    A timer of the event loop takes some 700 bytes, and a stream would have several.

    Args:
        due: is called with whose time has come.

    Attributes:
        live: how many there are that have not ended.
    """

    def __init__(self, due: Callable[[T], None]) -> None:
        self._due = due
        self.live = 0
        # The number decides between equal times: what was set first is called first.
        self._heap: list[tuple[float, int, Deadline[T]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf

    @property
    def size(self) -> int:
        """How many are held: those that have not ended, and those that were not yet swept out."""
        return len(self._heap)

    def set(self, when: float, of: T) -> Deadline[T]:
        """Sets a deadline, in the event loop's time."""
        deadline = Deadline(self, of)
        self.live += 1
        heapq.heappush(self._heap, (when, next(self._numbers), deadline))
        if when < self._armed_for:
            self._arm(when)
        return deadline

    def close(self) -> None:
        """Calls nobody any more."""
        for _, _, deadline in self._heap:
            deadline.take()
        self.sweep()

    def sweep(self) -> None:
        """Lets go of those that were cancelled, once they are more than the others."""
        if not self.live:
            self._heap.clear()
            self._disarm()
        elif len(self._heap) - self.live > max(CANCELLED_MAX, self.live):
            self._heap = [one for one in self._heap if not one[2].cancelled()]
            heapq.heapify(self._heap)

    def _arm(self, when: float) -> None:
        self._disarm()
        self._armed_for = when
        self._timer = asyncio.get_running_loop().call_at(when, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_for = None, math.inf

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        # A timer may fire a little before its time.
        now = max(self._armed_for, loop.time())
        self._disarm()
        due: list[Deadline[T]] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        # Whoever sets another one for now is called by the next timer, when the loop's time has moved on.
        for deadline in due:
            of = deadline.take()
            if of is None:
                continue
            try:
                self._due(of)
            except Exception as error:
                loop.call_exception_handler({"message": "whose time had come failed", "exception": error})
        if self._heap and self._heap[0][0] < self._armed_for:
            self._arm(self._heap[0][0])
