"""Many deadlines share one timer, and each is as exact as if it had its own."""

import asyncio
import gc
import weakref

import pytest

from tokenwire.dispatch.deadlines import CANCELLED_MAX, Deadline, Deadlines


class House:
    """Somebody whose time may come."""

    def __init__(self, name: str) -> None:
        self.name = name


class Diary:
    """Deadlines by name, and who was called when."""

    def __init__(self) -> None:
        self.calls = 0
        self.told: list[tuple[str, float]] = []
        self.deadlines = Deadlines[House](self._due)
        self._loop = asyncio.get_running_loop()

    def _due(self, house: House) -> None:
        self.calls += 1
        self.told.append((house.name, self._loop.time()))

    def set(self, name: str, when: float) -> Deadline[House]:
        return self.deadlines.set(when, House(name))


@pytest.mark.asyncio
async def test_each_comes_at_its_own_time_in_whatever_order_they_were_set() -> None:
    diary = Diary()
    for name, when in (("c", 30.3), ("a", 10.1), ("d", 3000.0), ("b", 20.2), ("b again", 20.2)):
        diary.set(name, when)
    await asyncio.sleep(4000.0)
    assert [name for name, _ in diary.told] == ["a", "b", "b again", "c", "d"]
    assert [when for _, when in diary.told] == pytest.approx([10.1, 20.2, 20.2, 30.3, 3000.0])


@pytest.mark.asyncio
async def test_one_that_was_cancelled_does_not_come_and_holds_nothing() -> None:
    diary = Diary()
    house = House("a")
    deadline, left = diary.deadlines.set(1.0, house), weakref.ref(house)
    diary.set("b", 2.0)
    del house
    assert not deadline.cancelled()
    deadline.cancel()
    deadline.cancel()
    gc.collect()
    assert deadline.cancelled()
    assert left() is None
    await asyncio.sleep(3.0)
    assert [name for name, _ in diary.told] == ["b"]
    assert diary.calls == 1


@pytest.mark.asyncio
async def test_one_that_has_come_is_over_and_holds_nothing() -> None:
    diary = Diary()
    house = House("a")
    deadline, left = diary.deadlines.set(1.0, house), weakref.ref(house)
    del house
    await asyncio.sleep(2.0)
    gc.collect()
    assert deadline.cancelled()
    assert left() is None


@pytest.mark.asyncio
async def test_those_that_were_cancelled_do_not_pile_up() -> None:
    diary = Diary()
    diary.set("last", 5000.0)
    for _ in range(100 * CANCELLED_MAX):
        diary.set("never", 4000.0).cancel()
    assert diary.deadlines.size <= CANCELLED_MAX + 2
    await asyncio.sleep(6000.0)
    assert [name for name, _ in diary.told] == ["last"]
    assert diary.deadlines.size == 0


@pytest.mark.asyncio
async def test_when_all_were_cancelled_nothing_is_left_and_the_next_one_comes() -> None:
    diary = Diary()
    one, other = diary.set("never", 10.0), diary.set("never", 20.0)
    one.cancel()
    assert diary.deadlines.size == 2
    other.cancel()
    assert diary.deadlines.size == 0
    diary.set("next", 30.0)
    await asyncio.sleep(40.0)
    assert diary.told == [("next", 30.0)]


@pytest.mark.asyncio
async def test_one_that_is_set_again_for_the_same_time_by_whom_it_calls_leaves_the_loop_its_turn() -> None:
    """As those do that find that the loop's clock, which goes in steps, is not there yet."""
    told: list[float] = []

    def due(house: House) -> None:
        told.append(turns)
        if len(told) < 3:
            deadlines.set(1.0, house)

    turns = 0
    deadlines = Deadlines[House](due)
    deadlines.set(1.0, House("a"))
    await asyncio.sleep(1.0)
    while deadlines.size:
        turns += 1
        await asyncio.sleep(0)
    assert told[1] < told[2]


@pytest.mark.asyncio
async def test_one_may_be_set_and_another_cancelled_while_somebody_is_called() -> None:
    diary = Diary()
    later: list[Deadline[House]] = []

    def due(house: House) -> None:
        diary.told.append((house.name, 0.0))
        if house.name == "first":
            later[0].cancel()
            deadlines.set(asyncio.get_running_loop().time() + 1.0, House("third"))

    deadlines = Deadlines[House](due)
    deadlines.set(1.0, House("first"))
    later.append(deadlines.set(1.0, House("second")))
    await asyncio.sleep(5.0)
    assert [name for name, _ in diary.told] == ["first", "third"]


@pytest.mark.asyncio
async def test_a_bug_with_one_does_not_keep_the_others_from_coming() -> None:
    told: list[str] = []
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))

    def due(house: House) -> None:
        if house.name == "broken":
            raise RuntimeError
        told.append(house.name)

    deadlines = Deadlines[House](due)
    for name in ("broken", "well"):
        deadlines.set(1.0, House(name))
    await asyncio.sleep(2.0)
    assert told == ["well"]
    assert len(failed) == 1


@pytest.mark.asyncio
async def test_once_closed_nobody_is_called() -> None:
    diary = Diary()
    diary.set("a", 1.0)
    diary.deadlines.close()
    await asyncio.sleep(2.0)
    assert diary.told == []
