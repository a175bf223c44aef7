"""What is measured when somebody looks: the state of runs, engines, readers and the journal, as they have it anyway.

Whoever looks may do so in a thread of its own; so what changes meanwhile is copied in one step first.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Protocol, TypeVar
from weakref import ref

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from tokenwire.dispatch.breaker import BreakerState
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.presence import Presence
from tokenwire.dispatch.run import last_ms
from tokenwire.engines.status import EngineState
from tokenwire.telemetry import names
from tokenwire.telemetry.run_observer import TracingObserver

T = TypeVar("T")


class Holding(Protocol):
    """What a journal says of its size."""

    @property
    def held(self) -> int:
        """Bytes reserved or held."""
        ...


def observe(meter: Meter, *, fleet: Fleet, presence: Presence, journal: Holding, observer: TracingObserver) -> None:
    """Makes the gauges of a server, which they do not keep alive."""

    def gauge(name: str, unit: str, text: str, of: T, look: Callable[[T], Iterable[Observation]]) -> None:
        meter.create_observable_gauge(name, [_looking(of, look)], unit, text)

    gauge(names.RUNS_ACTIVE, "{run}", "Runs that this process writes.", observer, _active)
    gauge(names.READERS_OPEN, "{stream}", "Streams that read a run.", presence, _open)
    gauge(names.READERS_BEHIND, "{stream}", "Those of them that have not caught up with it.", presence, _behind)
    gauge(names.JOURNAL_BYTES, "By", "Bytes that the journal holds or has reserved.", journal, _held)
    gauge(names.ENGINES, "1", "1 for the state that an engine is in.", fleet, _states)
    gauge(names.ENGINE_CHOICES, "{choice}", "Choices that an engine writes now.", fleet, _choices)
    gauge(names.BREAKER, "1", "1 for the state that an engine's breaker is in.", fleet, _breakers)
    meter.create_observable_counter(
        names.BREAKER_OPENINGS, [_looking(fleet, _openings)], "{opening}", "How often an engine's breaker has opened."
    )
    engines = [engine.name for engine in fleet.engines]
    gauge(
        names.ENGINE_SILENCE,
        "s",
        "How long the most silent attempt of an engine has been so.",
        observer,
        lambda one: _silence(one, engines),
    )


def _looking(of: T, look: Callable[[T], Iterable[Observation]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    weak = ref(of)

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        found = weak()
        return look(found) if found is not None else ()

    return callback


def _active(observer: TracingObserver) -> Iterator[Observation]:
    counts = Counter({(model, state): 0 for model in observer.models for state in ("queued", "running")})
    counts.update((one.labels[names.REQUEST_MODEL], "queued" if one.waits else "running") for one in observer.runs())
    for (model, state), count in counts.items():
        yield Observation(count, {names.REQUEST_MODEL: model, names.RUN_STATE: state})


def _silence(observer: TracingObserver, engines: Iterable[str]) -> Iterator[Observation]:
    longest = dict.fromkeys(engines, 0)
    for one in observer.runs():
        attempt, run = one.attempt_now, one.run
        if attempt is not None and run is not None:
            # A channel may have been opened this very moment, and hold nothing yet.
            with suppress(IndexError):
                longest[attempt.engine] = max(longest.get(attempt.engine, 0), run.elapsed_ms() - last_ms(run.log))
    for engine, silent_ms in longest.items():
        yield Observation(silent_ms / 1000, {names.ENGINE: engine})


def _open(presence: Presence) -> Iterator[Observation]:
    yield Observation(sum(one.view is not None for one in tuple(presence.readings)))


def _behind(presence: Presence) -> Iterator[Observation]:
    yield Observation(sum(one.view is not None and one.view.behind for one in tuple(presence.readings)))


def _held(journal: Holding) -> Iterator[Observation]:
    yield Observation(journal.held)


def _states(fleet: Fleet) -> Iterator[Observation]:
    for engine in fleet.engines:
        found = engine.status.state
        for state in EngineState:
            yield Observation(int(found is state), {names.ENGINE: engine.name, names.ENGINE_STATE: state.name.lower()})


def _choices(fleet: Fleet) -> Iterator[Observation]:
    for engine in fleet.engines:
        yield Observation(fleet.places.running(engine), {names.ENGINE: engine.name})


def _breakers(fleet: Fleet) -> Iterator[Observation]:
    for engine in fleet.engines:
        found = fleet.places.breaker(engine).state
        for state in BreakerState:
            labels = {names.ENGINE: engine.name, names.BREAKER_STATE: state.name.lower()}
            yield Observation(int(found is state), labels)


def _openings(fleet: Fleet) -> Iterator[Observation]:
    for engine in fleet.engines:
        yield Observation(fleet.places.breaker(engine).openings, {names.ENGINE: engine.name})
