"""Who gets a place on an engine next: runs that go on before new ones, then by arrival."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import chain

from tokenwire.dispatch.place import Place

# Stands for all that an engine has.
ALL = 1 << 30
# Returns a place if there is one. Is given how many choices of which engines are kept for those who come before, and
# adds what must be kept for this one, or ALL of an engine that nobody can have now.
Want = Callable[[Counter[str]], Place | None]


class _Waiter:
    __slots__ = ("given", "want")

    def __init__(self, want: Want) -> None:
        self.want = want
        self.given: asyncio.Future[Place] = asyncio.get_running_loop().create_future()


class WaitingLine:
    """Two lines; whenever a place has become free, the first that can use it gets it.

    Args:
        engines: how many there are.
    """

    def __init__(self, engines: int) -> None:
        self._engines = engines
        self._going_on: OrderedDict[_Waiter, None] = OrderedDict()
        self._new: OrderedDict[_Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._going_on) + len(self._new)

    async def take(
        self, want: Want, *, goes_on: bool, seconds: float, patient: Callable[[], bool], waits: Callable[[], None]
    ) -> Place:
        """Returns a place once there is one. Raises TimeoutError after so many seconds.

        Args:
            want: tries to get a place.
            goes_on: whether it comes before those that have not begun.
            seconds: how long to wait.
            patient: whether to wait as long again, asked each time that they are over.
            waits: is called if there is no place at once.
        """
        if not len(self):
            # Nobody comes before it; mostly there is a place, and no need to wait in line.
            place = want(Counter())
            if place is not None:
                return place
        waiter = _Waiter(want)
        line = self._going_on if goes_on else self._new
        line[waiter] = None
        try:
            self.serve()
            if not waiter.given.done():
                waits()
            while not waiter.given.done():
                await asyncio.wait((waiter.given,), timeout=seconds)
                if not waiter.given.done() and not patient():
                    raise TimeoutError
            return waiter.given.result()
        except BaseException:
            if waiter.given.done():
                waiter.given.result().release()
            raise
        finally:
            line.pop(waiter, None)
            # Nobody gives it a place that nobody would take.
            waiter.given.cancel()

    def serve(self) -> None:
        """Gives out what there is. Is called whenever something may have become free."""
        if not len(self):
            return
        kept: Counter[str] = Counter()
        for waiter in list(chain(self._going_on, self._new)):
            if len(kept) >= self._engines and min(kept.values()) >= ALL:
                return
            if not waiter.given.done():
                place = waiter.want(kept)
                if place is not None:
                    waiter.given.set_result(place)
