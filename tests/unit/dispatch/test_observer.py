"""Whoever watches runs is told of each step once; what is measured of it is exact."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenwire.dispatch.observer import AttemptObserver, Joining, RunObserver
from tokenwire.dispatch.presence import Reading
from tokenwire.dispatch.run import Run, StopCause
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.cursor import Cursor
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.events import Continuation
from tokenwire.domain.generation import Job
from tokenwire.domain.request import Sampling, Submission
from tokenwire.engines.engine import Engine
from tokenwire.engines.scripted import Pause, ScriptedEngine, Step
from tokenwire.engines.toy_model import ToyModel
from tokenwire.telemetry.gauges import observe
from tokenwire.telemetry.instruments import Instruments
from tokenwire.telemetry.run_observer import TracingObserver
from unit.dispatch.house import House, asked, engine, say, stop, text_comes


class Noting:
    """An observer of everything that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.headers: Mapping[str, str] = {"traceparent": "mine"}
        self.traceparent = "of-the-run"

    def begins(self, run_id: str, model: str, submission: Submission) -> RunObserver:
        self.notes.append(f"begins {model}")
        return self

    def takes_over(self, run: Run) -> RunObserver:
        self.notes.append("takes over")
        return self

    def joins(self, run: Run, how: Joining, after: Cursor | None) -> None:
        self.notes.append(f"joins {how.value}")

    def accepted(self, run: Run) -> None:
        self.notes.append("accepted")

    def queued(self) -> None:
        self.notes.append("queued")

    def seated(self, engine: Engine | None) -> None:
        self.notes.append(f"seated {engine.name if engine else None}")

    def attempt(
        self, engine: Engine, by: Continuation, submission: Submission, prompt_tokens: int | None, *, streamed: bool
    ) -> AttemptObserver:
        self.notes.append(f"attempt {engine.name} {by.name} {prompt_tokens}")
        return self

    def first_token(self) -> None:
        self.notes.append("first token")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.notes.append(f"attempt over {type(error).__name__ if error else None}")

    def ended(self) -> None:
        self.notes.append("ended")


class Measured:
    """A house whose runs are traced and measured."""

    def __init__(self, house: House) -> None:
        self.exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self._reader])
        meter = self.meters.get_meter("test")
        observer = TracingObserver(
            self.tracers.get_tracer("test"), Instruments(meter), house.clock.monotonic, lambda model: True
        )
        house.runs.observer = observer
        observe(meter, fleet=house.fleet, presence=house.runs.presence, journal=house.journal, observer=observer)

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        assert data is not None
        metrics = (
            one for resource in data.resource_metrics for scope in resource.scope_metrics for one in scope.metrics
        )
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def sums(self, name: str) -> list[float]:
        return [round(point.sum, 6) for point in self.points(name)]


@contextmanager
def measured(house: House) -> Iterator[Measured]:
    one = Measured(house)
    yield one
    one.tracers.shutdown()
    one.meters.shutdown()


def watched(house: House) -> list[str]:
    noting = Noting()
    house.runs.observer = noting
    return noting.notes


@pytest.mark.asyncio
async def test_each_step_of_a_run_is_told_once_and_in_order() -> None:
    house = House(engine=engine(say("one"), say(" two"), stop()))
    notes = watched(house)
    run = await house.submit(asked())
    assert run.traceparent == "of-the-run"
    await house.read_to_the_end(run)
    assert notes == [
        *("begins scripted", "accepted", "seated scripted", "attempt scripted FIRST 2"),
        *("first token", "attempt over None", "ended"),
    ]
    await house.at_rest()


@pytest.mark.asyncio
async def test_headers_go_with_every_job_also_with_those_that_go_on() -> None:
    toy = ToyModel()
    jobs: list[Mapping[str, str]] = []

    def noted(one: ScriptedEngine) -> ScriptedEngine:
        script = one._script

        def noting(job: Job) -> Sequence[Step]:
            jobs.append(job.headers)
            return script(job)

        one._script = noting
        return one

    engines = [noted(toy.engine("a", die_after=[3])), noted(toy.engine("b"))]
    house = House(engine=engines[0], engines=engines, failover=Failover())
    notes = watched(house)
    await house.read_to_the_end(await house.submit(asked(sampling=Sampling(n=2))))
    assert jobs == [{"traceparent": "mine"}] * 3
    attempts = [note for note in notes if note.startswith("attempt")]
    # What goes on is sent with what is there: two prompts, and three tokens of each answer.
    assert attempts[0].startswith("attempt a FIRST")
    assert attempts[1] == "attempt over EngineError"
    assert attempts[2].startswith("attempt b BY_TOKENS")
    await house.at_rest()


@pytest.mark.asyncio
@pytest.mark.parametrize("cause", [cause for cause in StopCause if cause is not StopCause.HANDOVER])
async def test_a_run_that_is_stopped_ends_once_for_whoever_watches(cause: StopCause) -> None:
    house = House(engine=engine(say("one"), Pause(None)))
    notes = watched(house)
    run = await house.submit(asked(detached=True))
    await text_comes(run)
    run.stop(cause)
    run.stop(StopCause.CANCEL)
    await run.finished()
    assert notes[-2:] == ["attempt over CancelledError", "ended"]
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_run_that_was_not_accepted_leaves_no_span() -> None:
    house = House(journal_bytes=100)
    with measured(house) as seen:
        with pytest.raises(TokenwireError, match="no room"):
            await house.submit(asked())
        assert seen.exporter.get_finished_spans() == ()
        assert seen.points("gen_ai.server.request.duration") == []
    await house.at_rest()


@pytest.mark.asyncio
async def test_times_are_those_of_the_run() -> None:
    steps = [Pause(2.0), *(step for _ in range(11) for step in (say("word"), Pause(0.5))), stop()]
    house = House(engine=engine(*steps))
    with measured(house) as seen:
        await house.read_to_the_end(await house.submit(asked()))
        assert seen.sums("gen_ai.server.request.duration") == [7.5]
        assert seen.sums("gen_ai.server.time_to_first_token") == [2.0]
        assert seen.sums("gen_ai.server.time_per_output_token") == [0.55]
        assert seen.sums("gen_ai.client.operation.duration") == [7.5]
        assert seen.sums("gen_ai.client.operation.time_to_first_chunk") == [2.0]
        assert seen.sums("gen_ai.client.operation.time_per_output_chunk") == [0.5]
        assert seen.sums("tokenwire.queue.wait") == [0.0]
    await house.at_rest()


@pytest.mark.asyncio
async def test_the_wait_for_a_place_is_measured_also_of_those_who_give_up() -> None:
    house = House(engine=ScriptedEngine(script=lambda job: [Pause(3.0), say("one"), stop()], slots=1))
    with measured(house) as seen:
        runs = [await house.submit(asked(detached=True)) for _ in range(3)]
        await asyncio.sleep(1.0)
        runs[2].stop(StopCause.CANCEL)
        await asyncio.gather(*(run.finished() for run in runs))
        waits = {point.attributes["tokenwire.queue.outcome"]: point for point in seen.points("tokenwire.queue.wait")}
        assert (waits["seated"].count, round(waits["seated"].sum, 6)) == (2, 3.0)
        assert (waits["left"].count, round(waits["left"].sum, 6)) == (1, 1.0)
        names = [span.name for span in seen.exporter.get_finished_spans()]
        assert names.count("queue wait") == 2
    await house.at_rest()


@pytest.mark.asyncio
async def test_the_pause_is_from_the_last_event_before_a_fault_to_the_first_token_after_it() -> None:
    dead = engine(say("one"), Pause(None))
    dead.name = "a"
    late = engine(Pause(2.0), say(" two"), stop())
    late.name = "b"
    house = House(engine=dead, engines=[dead, late], failover=Failover())
    with measured(house) as seen:
        run = await house.submit(asked())
        with house.read(run):
            await text_comes(run)
            await asyncio.sleep(10.0)
            silences = {
                point.attributes["tokenwire.engine.name"]: point.value
                for point in seen.points("tokenwire.engine.silence")
            }
            assert silences == {"a": 10.0, "b": 0.0}
            await run.finished()
        # An engine that says nothing counts as dead after 30 seconds.
        assert seen.sums("tokenwire.reader.pause") == [32.0]
        reasons = [dict(span.attributes or {}).get("error.type") for span in seen.exporter.get_finished_spans()]
        assert reasons == ["ENGINE_STALLED", None, None]
    await house.at_rest()


class _Lagging:
    behind = True


@pytest.mark.asyncio
async def test_a_reader_is_behind_until_it_has_taken_what_there_is() -> None:
    house = House(engine=engine(say("one"), Pause(1.0), stop()))
    with measured(house) as seen:
        run = await house.submit(asked())
        with house.runs.reading(run) as reading, house.runs.reading(run):
            assert isinstance(reading, Reading)
            assert seen.points("tokenwire.readers.open")[0].value == 0
            reading.view = _Lagging()
            assert [seen.points(f"tokenwire.readers.{name}")[0].value for name in ("open", "behind")] == [1, 1]
            await run.finished()
        assert [seen.points(f"tokenwire.readers.{name}")[0].value for name in ("open", "behind")] == [0, 0]
    await house.at_rest()
