"""Restarts, with lives that the test ends and time that the test makes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

import pytest
import pytest_asyncio
import structlog

from harness.waiting import until
from tokenwire.engines.llamacpp.process import Ready, StartError
from tokenwire.engines.llamacpp.supervisor import STABLE_SECONDS, Life, Supervisor
from tokenwire.engines.status import EngineState, ModelInfo, Status

READY = Ready(url="http://127.0.0.1:1", slots=2, ctx_per_slot=64, model="tiny")
MODELS = (ModelInfo("tiny", 64),)


class FakeLife:
    """A child that dies when the test says so."""

    ready = READY

    def __init__(self) -> None:
        self.death: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stopped = False

    async def wait(self) -> int:
        return await asyncio.shield(self.death)

    async def stop(self) -> None:
        self.stopped = True


@dataclass
class Stage:
    """A supervisor, and all that is around it.

    `plan` holds what the next starts do: raise, or come up. `pauses` holds the pauses that were asked for; each lasts
    until the test lets it end.
    """

    supervisor: Supervisor
    status: Status
    plan: list[Exception | None] = field(default_factory=list)
    lives: list[FakeLife] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    states: list[EngineState] = field(default_factory=list)
    now: float = 1000.0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    starting: asyncio.Event | None = None

    async def reaches(self, state: EngineState) -> None:
        while self.status.state is not state:
            await self.status.changed()

    async def pauses_reach(self, count: int) -> None:
        await until(lambda: len(self.pauses) >= count, f"pause {count}")

    def end_pause(self) -> None:
        self.go_on.set()


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    status = Status()

    async def launch() -> Life:
        outcome = built.plan.pop(0) if built.plan else None
        if outcome is not None:
            raise outcome
        if built.starting is not None:
            await built.starting.wait()
        life = FakeLife()
        built.lives.append(life)
        return life

    async def greet(ready: Ready) -> tuple[ModelInfo, ...]:
        return (ModelInfo(ready.model, ready.ctx_per_slot),)

    async def sleep(seconds: float) -> None:
        built.pauses.append(seconds)
        await built.go_on.wait()
        built.go_on.clear()

    supervisor = Supervisor(
        launch=launch,
        greet=greet,
        status=status,
        pause_min=1.0,
        pause_max=10.0,
        rng=Random(5),
        monotonic=lambda: built.now,
        sleep=sleep,
    )
    built = Stage(supervisor=supervisor, status=status)
    status.watch(lambda: built.states.append(status.state))
    yield built
    await supervisor.close()


@pytest.mark.asyncio
async def test_a_child_that_came_up_makes_the_engine_ready_with_its_model(stage: Stage) -> None:
    assert not stage.supervisor.up
    await stage.supervisor.start()
    await stage.reaches(EngineState.READY)
    assert stage.supervisor.up
    assert stage.status.models == MODELS


@pytest.mark.asyncio
async def test_the_engine_loads_until_the_child_answers(stage: Stage) -> None:
    stage.starting = asyncio.Event()
    stage.status.set(EngineState.UNAVAILABLE)
    await stage.supervisor.start()
    await stage.reaches(EngineState.LOADING)
    assert not stage.supervisor.up
    stage.starting.set()
    await stage.reaches(EngineState.READY)


@pytest.mark.asyncio
async def test_a_child_that_dies_is_started_again_after_a_pause(stage: Stage) -> None:
    await stage.supervisor.start()
    await stage.reaches(EngineState.READY)
    stage.lives[0].death.set_result(-9)
    await stage.reaches(EngineState.UNAVAILABLE)
    assert not stage.supervisor.up
    assert stage.lives[0].stopped
    await stage.pauses_reach(1)
    assert len(stage.lives) == 1
    stage.end_pause()
    await stage.reaches(EngineState.READY)
    assert len(stage.lives) == 2
    assert stage.states == [
        EngineState.READY,
        EngineState.UNAVAILABLE,
        EngineState.LOADING,
        EngineState.READY,
    ]


@pytest.mark.asyncio
async def test_an_engine_that_keeps_failing_to_start_stays_unavailable(stage: Stage) -> None:
    stage.plan = [StartError("no"), StartError("no"), StartError("no")]
    await stage.supervisor.start()
    for count in (1, 2, 3):
        await stage.pauses_reach(count)
        stage.end_pause()
    await stage.reaches(EngineState.READY)
    assert stage.states == [EngineState.UNAVAILABLE, EngineState.READY]


@pytest.mark.asyncio
async def test_pauses_double_up_to_the_longest_and_are_shortened_by_at_most_a_half(stage: Stage) -> None:
    stage.plan = [StartError("no")] * 7
    await stage.supervisor.start()
    for count in range(1, 8):
        await stage.pauses_reach(count)
        stage.end_pause()
    await stage.reaches(EngineState.READY)
    limits = [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(stage.pauses, limits, strict=True))
    assert len(set(stage.pauses)) == len(stage.pauses)


@pytest.mark.asyncio
@pytest.mark.parametrize(("lived", "longest"), [(STABLE_SECONDS, 1.0), (STABLE_SECONDS - 1, 8.0)])
async def test_a_long_life_makes_the_pauses_short_again(stage: Stage, lived: float, longest: float) -> None:
    stage.plan = [StartError("no")] * 3
    await stage.supervisor.start()
    for count in (1, 2, 3):
        await stage.pauses_reach(count)
        stage.end_pause()
    await stage.reaches(EngineState.READY)
    stage.now += lived
    stage.lives[0].death.set_result(1)
    await stage.pauses_reach(4)
    assert longest / 2 <= stage.pauses[3] <= longest


@pytest.mark.asyncio
async def test_a_caller_is_told_to_come_back_after_the_pause(stage: Stage) -> None:
    stage.plan = [StartError("no")]
    await stage.supervisor.start()
    await stage.pauses_reach(1)
    assert stage.supervisor.retry_after == pytest.approx(stage.pauses[0] + 1.0)
    stage.now += 100.0
    assert stage.supervisor.retry_after == 1.0


@pytest.mark.asyncio
async def test_closing_ends_the_child_and_all_restarts(stage: Stage) -> None:
    await stage.supervisor.start()
    await stage.reaches(EngineState.READY)
    await stage.supervisor.close()
    assert stage.lives[0].stopped
    assert stage.status.state is EngineState.UNAVAILABLE
    assert stage.pauses == []


@pytest.mark.asyncio
async def test_a_bug_while_starting_does_not_end_the_restarts(stage: Stage) -> None:
    stage.plan = [RuntimeError("a bug")]
    await stage.supervisor.start()
    await stage.pauses_reach(1)
    stage.end_pause()
    await stage.reaches(EngineState.READY)


@pytest.mark.asyncio
async def test_each_failure_is_logged_once_in_plain_words(stage: Stage) -> None:
    stage.plan = [StartError("the child was not ready in time")]
    with structlog.testing.capture_logs() as logs:
        await stage.supervisor.start()
        await stage.pauses_reach(1)
        stage.end_pause()
        await stage.reaches(EngineState.READY)
        stage.lives[0].death.set_result(-11)
        await stage.reaches(EngineState.UNAVAILABLE)
    assert logs == [
        {
            "event": "the embedded engine did not start",
            "log_level": "error",
            "reason": "the child was not ready in time",
            "failures": 1,
        },
        {"event": "the embedded engine died and is restarted", "log_level": "warning", "exit_code": -11},
    ]
