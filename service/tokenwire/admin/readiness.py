"""Whether a server is to get calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tokenwire.dispatch.fleet import Fleet
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState


class Phase(StrEnum):
    """Where a server is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


# What an engine is in if it takes no calls for a while because it has failed again and again.
RESTING = "resting"
USABLE = EngineState.READY.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The answer to a probe.

    Attributes:
        reasons: why the server is not to get calls; none: it is.
        engines: the state of each engine, by its name.
    """

    reasons: tuple[str, ...]
    engines: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether the server is to get calls."""
        return not self.reasons


class Readiness:
    """Knows whether a server is to get calls: it serves, and an engine can answer at once.

    An engine that loads its model counts for the calls that are here, which wait for it; a server that has no other one
    is not to get more of them, or a roll-out would go on before its first server can answer.

    Args:
        engines: tells the state of each engine.

    Attributes:
        phase: where the server is in its life.
    """

    def __init__(self, engines: Callable[[], Mapping[str, str]]) -> None:
        self._engines = engines
        self.phase = Phase.STARTING

    def report(self) -> Report:
        """Returns how things are."""
        engines = self._engines()
        reasons = [] if self.phase is Phase.SERVING else [self.phase.value]
        if USABLE not in engines.values():
            reasons.append("no engine is ready")
        return Report(reasons=tuple(reasons), engines=engines)


def engine_states(fleet: Fleet) -> dict[str, str]:
    """Returns the state of each engine: ready, loading, unavailable, or resting while its breaker is open."""
    return {engine.name: _state(fleet, engine) for engine in fleet.engines}


def _state(fleet: Fleet, engine: Engine) -> str:
    state = engine.status.state
    if state is EngineState.READY and fleet.places.closed(engine) > 0:
        return RESTING
    return state.name.lower()
