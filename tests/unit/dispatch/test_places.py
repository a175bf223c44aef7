"""Who gets a place on an engine, and when."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from tokenwire.dispatch.breaker import BreakerState
from tokenwire.dispatch.place import Place
from tokenwire.dispatch.places import Wish
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.errors import Code, EngineError, TokenwireError
from tokenwire.domain.events import Dispatched
from tokenwire.domain.generation import Job
from tokenwire.domain.request import FailoverPolicy, RunOptions, Sampling, Stopping, Submission
from tokenwire.engines.scripted import Cut, Fail, Pause, ScriptedEngine, Step, WaitFor
from tokenwire.engines.status import EngineState
from tokenwire.engines.toy_model import ToyModel
from unit.dispatch.house import House, asked, say, stop

LOST = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "gone", retryable=True, retry_after=1.0)
GOOD = [say("a"), stop()]


def house(*engines: ScriptedEngine, **failover: Any) -> House:
    return House(engines[0], engines=engines, failover=Failover(**failover))


def toy_request(prompt: str = "hi", n: int = 1, **options: Any) -> Submission:
    run = RunOptions(detached=True, **options)
    return Submission(prompt=prompt, stopping=Stopping(max_tokens=20), sampling=Sampling(n=n), run=run)


async def all_end(runs: Sequence[Run]) -> None:
    for run in runs:
        await run.finished()


def dispatched(run: Run) -> bool:
    return any(isinstance(marked.marker, Dispatched) for marked in run.log.markers)


@pytest.mark.asyncio
async def test_no_more_choices_are_written_than_an_engine_has_slots() -> None:
    most = 0

    def script(job: Job) -> Sequence[Step]:
        nonlocal most
        most = max(most, a.running)
        return [Pause(1), *GOOD]

    a = ScriptedEngine("a", script=script, slots=2)
    one = house(a)
    runs = [await one.submit(asked(detached=True)) for _ in range(6)]
    await asyncio.sleep(0.5)
    assert [dispatched(run) for run in runs] == [True, True, False, False, False, False]
    assert (one.fleet.places.taken, one.fleet.places.waiting) == (2, 4)
    await all_end(runs)
    assert (most, [run.end.timings.completed_ms for run in runs if run.end]) == (
        2,
        [1000, 1000, 2000, 2000, 3000, 3000],
    )
    await one.at_rest()


@pytest.mark.asyncio
async def test_a_run_of_several_choices_waits_for_as_many_slots_and_is_not_overtaken() -> None:
    toy = ToyModel(seconds=1.0)
    one = house(toy.engine("a", slots=3))
    first = await one.submit(toy_request())
    wide = await one.submit(toy_request(n=3))
    narrow = await one.submit(toy_request())
    await all_end([first, wide, narrow])
    assert [run.end.timings.scheduled_ms for run in (first, wide, narrow) if run.end] == [0, 20_000, 40_000]


@pytest.mark.asyncio
async def test_a_run_waits_for_a_slot_as_long_as_the_engine_is_well() -> None:
    a = ScriptedEngine("a", script=lambda job: [say("a"), *[Pause(29), say("a")] * 10, stop()], slots=1)
    one = house(a)
    runs = [await one.submit(asked(detached=True)) for _ in range(2)]
    await all_end(runs)
    assert [run.error for run in runs] == [None, None]


@pytest.mark.asyncio
async def test_a_run_that_goes_on_comes_before_new_ones() -> None:
    toy = ToyModel(seconds=1.0)
    a = toy.engine("a", die_after=[10], slots=1)
    one = house(a)
    old = await one.submit(toy_request())
    new = [await one.submit(toy_request(f"hi {number}")) for number in range(3)]
    await all_end([old, *new])
    ends = [run.end.timings.completed_ms for run in (old, *new) if run.end]
    # A pause of its own is in between.
    assert ends == sorted(ends)
    assert ends[0] == pytest.approx(20_000, abs=100)
    assert [run.attempt for run in (old, *new)] == [2, 1, 1, 1]


@pytest.mark.asyncio
async def test_a_run_that_goes_on_is_the_most_urgent_where_the_engine_looks_at_it() -> None:
    priorities: list[int | None] = []

    def engine(name: str, ranks: bool) -> ScriptedEngine:
        toy = ToyModel()
        deaths: list[int | None] = [20]

        def script(job: Job) -> Sequence[Step]:
            priorities.append(job.submission.run.priority)
            return toy.steps(job, deaths.pop() if deaths else None)

        one = toy.engine(name)
        one._script = script
        one.ranks = ranks
        one.fields = {**one.fields, "run.priority": one.fields["prompt"]}
        return one

    long = Submission(prompt="hi", stopping=Stopping(max_tokens=40), run=RunOptions(detached=True))
    named = Submission(prompt="hi", stopping=Stopping(max_tokens=40), run=RunOptions(detached=True, priority=5))
    for ranks, request in ((True, long), (False, long), (False, named)):
        await all_end([await house(engine("a", ranks)).submit(request)])
    assert priorities == [None, 100, None, None, 5, 100]


@pytest.mark.asyncio
async def test_many_runs_whose_engine_dies_wait_for_the_one_that_finds_out_whether_it_is_back() -> None:
    toy, dead = ToyModel(seconds=1.0), asyncio.Event()
    begun: list[float] = []

    def script(job: Job) -> Sequence[Step]:
        begun.append(asyncio.get_running_loop().time())
        if not dead.is_set():
            return toy.steps(job, 10)
        return [Pause(2.0), *toy.steps(job)]

    a = toy.engine("a")
    a._script = script
    one = house(a)
    runs = [await one.submit(toy_request(f"hi {number}")) for number in range(100)]
    await asyncio.sleep(5)
    assert len(begun) == 100
    dead.set()
    await asyncio.sleep(5.2)
    assert one.fleet.places.breaker(a).state is BreakerState.OPEN
    await all_end(runs)
    assert [run.error for run in runs] == [None] * 100
    again = begun[100:]
    # One went first; the others came when it had its first token.
    assert len(again) == 100
    assert again[1] - again[0] == pytest.approx(3.0)
    await one.at_rest()


@pytest.mark.asyncio
async def test_a_flapping_engine_is_tried_by_one_run_at_a_time() -> None:
    begun: list[float] = []

    def script(job: Job) -> Sequence[Step]:
        begun.append(asyncio.get_running_loop().time())
        return [Pause(0.01), Fail(LOST)]

    a = ScriptedEngine("a", script=script)
    one = house(a, attempts=100)
    runs = [await one.submit(asked(detached=True)) for _ in range(50)]
    await all_end(runs)
    assert all(run.error is not None for run in runs)
    probes = [at for at in begun if at > 0.5]
    assert 5 < len(probes) < 20
    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert min(gaps) > 0.4
    assert max(gaps) < 5


@pytest.mark.asyncio
async def test_new_requests_are_refused_at_once_while_every_breaker_is_open_and_let_in_soon_after_the_fault() -> None:
    broken = [True]
    a = ScriptedEngine("a", script=lambda job: [Fail(LOST)] if broken[0] else GOOD)
    one = house(a, policy=FailoverPolicy.NONE)
    for _ in range(5):
        await all_end([await one.submit(asked(detached=True))])
    with pytest.raises(TokenwireError) as caught:
        await one.submit(asked(detached=True))
    error = caught.value
    assert (error.code, error.reason, error.retryable) == (Code.UNAVAILABLE, "BREAKER_OPEN", True)
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 4.0
    assert len(one.runs.list("local")) == 5
    broken[0] = False
    await asyncio.sleep(error.retry_after)
    runs = [await one.submit(asked(detached=True)) for _ in range(10)]
    await all_end(runs)
    assert [run.error for run in runs] == [None] * 10


@pytest.mark.asyncio
async def test_new_requests_go_to_an_engine_whose_breaker_is_closed() -> None:
    a, b = ScriptedEngine("a", script=lambda job: [Fail(LOST)]), ScriptedEngine("b", script=lambda job: GOOD)
    one = house(a, b)
    for _ in range(30):
        await all_end([await one.submit(asked(detached=True))])
    # After five failures, one of the seconds that have passed at most.
    assert a.started == 5


@pytest.mark.asyncio
async def test_one_run_that_breaks_its_engines_does_not_shut_them_out_for_others() -> None:
    a = ScriptedEngine("a", script=lambda job: [Fail(LOST)] if job.submission.prompt == "poison" else GOOD)
    one = house(a)
    for _ in range(3):
        await all_end([await one.submit(asked(prompt="poison", detached=True))])
    assert one.fleet.places.breaker(a).state is BreakerState.CLOSED
    assert a.started == 15


@pytest.mark.asyncio
async def test_an_engine_that_is_down_by_its_health_is_asked_by_nobody_and_tried_by_one_when_it_is_back() -> None:
    go = asyncio.Event()
    a = ScriptedEngine("a", script=lambda job: [WaitFor(go), *GOOD])
    one = house(a)
    runs = [await one.submit(asked(detached=True)) for _ in range(5)]
    a.status.set(EngineState.UNAVAILABLE)
    await asyncio.sleep(10)
    assert a.started == 0
    with pytest.raises(TokenwireError, match="reached"):
        await one.submit(asked())
    a.status.set(EngineState.READY)
    await asyncio.sleep(1)
    assert a.started == 1
    go.set()
    await all_end(runs)
    assert (a.started, [run.error for run in runs]) == (5, [None] * 5)


@pytest.mark.asyncio
async def test_an_engine_that_has_come_back_unnoticed_is_found_by_the_next_request() -> None:
    class Back(ScriptedEngine):
        async def check(self) -> None:
            self.status.set(EngineState.READY)

    a = Back("a", script=lambda job: GOOD)
    one = house(a)
    a.status.set(EngineState.UNAVAILABLE)
    run = await one.submit(asked(detached=True))
    await run.finished()
    assert run.error is None


@pytest.mark.asyncio
async def test_a_run_waits_for_a_model_that_is_being_loaded() -> None:
    toy = ToyModel()
    a = toy.engine("a")
    one = house(a)
    run = await one.submit(toy_request())
    a.status.set(EngineState.LOADING)
    await asyncio.sleep(100)
    a.status.set(EngineState.READY)
    await run.finished()
    assert run.error is None


@pytest.mark.asyncio
async def test_a_place_that_comes_when_nobody_waits_any_more_goes_to_the_next() -> None:
    a = ScriptedEngine("a", slots=1)
    places = house(a).fleet.places
    wish = Wish(candidates=lambda: [a])
    first = await places.take(wish, 1)
    waiting = [asyncio.create_task(places.take(wish, 100)) for _ in range(2)]
    await asyncio.sleep(1)
    # In one turn of the loop the first one is given the place, and is cancelled.
    first.release()
    waiting[0].cancel()
    place: Place = await waiting[1]
    assert waiting[0].cancelled()
    assert places.taken == 1
    place.release()
    place.release()
    assert places.taken == 0
    with pytest.raises(TimeoutError):
        await places.take(Wish(candidates=list), 5)
    assert places.waiting == 0


@pytest.mark.asyncio
async def test_a_cut_stream_without_an_error_counts_as_one() -> None:
    a = ScriptedEngine("a", script=lambda job: [say("a"), Cut()])
    one = house(a, policy=FailoverPolicy.NONE)
    for _ in range(3):
        await all_end([await one.submit(asked(detached=True))])
    assert one.fleet.places.breaker(a).state is BreakerState.OPEN
