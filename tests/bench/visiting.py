"""One start of one system, and the samples that come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.burst import burst
from bench.gateway import Gateway, running
from bench.measures.calls import calls
from bench.measures.firehose import firehose
from bench.measures.first_token import first_token
from bench.measures.memory import memory
from bench.measures.paced import paced
from bench.measures.saturation import saturation
from bench.measures.syscalls import syscalls
from bench.plan import Visit
from bench.results import Sample
from bench.scenarios import Kind, Mode, Scenario
from bench.site import Site
from bench.system import System
from bench.void import VoidError

_MEASURES: Mapping[Kind, Callable[[Site, Gateway, Scenario, float], dict[str, float]]] = {
    Kind.PACED: paced,
    Kind.FIREHOSE: firehose,
    Kind.CALL: calls,
    Kind.FIRST_TOKEN: first_token,
    Kind.MEMORY: memory,
    Kind.SYSCALLS: syscalls,
    Kind.SATURATION: saturation,
}
_WARM_STREAMS = 100
_FEW_STREAMS = 5
_WARM_TOKENS = 25
_WARM_SECONDS_MAX = 60
NO_TELEMETRY = "no span and no metric reached the collector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a visit has brought.

    Attributes:
        samples: one for each scenario, void ones included.
        said: the last that the gateway has written to standard error, if a sample is void.
    """

    samples: list[Sample] = field(default_factory=list)
    said: str = ""


def pay(site: Site, system: System, visit: Visit, mode: Mode) -> Outcome:
    """Starts a system, measures what the visit asks for, and ends it. What does not count is void, not an error."""
    taken: dict[str, dict[str, float]] = {}
    void: dict[str, str] = {}
    said: list[str] = []
    exports = site.collector.received()
    observed = False
    first = visit.scenarios[0]
    try:
        with running(site, system, first.rate, copies=first.copies) as gateway:
            observed = gateway.observed
            try:
                _warm_up(site, gateway, first)
                for scenario in visit.scenarios:
                    _measure(site, gateway, scenario, mode, taken, void)
            finally:
                said.append(gateway.said())
    except VoidError as error:
        # It did not start, or not even the warm-up went well.
        void |= {one.name: str(error) for one in visit.scenarios if one.name not in void}
        said.append(error.said)
    # Only now: the last spans go when a gateway ends.
    if observed and site.collector.received() <= exports:
        void = {one.name: NO_TELEMETRY for one in visit.scenarios} | void
    samples = [
        Sample(
            system=visit.system,
            scenario=one.name,
            round=visit.round,
            values=taken.get(one.name, {}),
            void=void.get(one.name, ""),
        )
        for one in visit.scenarios
    ]
    return Outcome(samples=samples, said="\n".join(said) if void else "")


def _measure(
    site: Site,
    gateway: Gateway,
    scenario: Scenario,
    mode: Mode,
    taken: dict[str, dict[str, float]],
    void: dict[str, str],
) -> None:
    try:
        taken[scenario.name] = _MEASURES[scenario.kind](site, gateway, scenario, scenario.effort(mode).seconds)
    except VoidError as error:
        taken[scenario.name] = error.values
        void[scenario.name] = str(error)


def _warm_up(site: Site, gateway: Gateway, scenario: Scenario) -> None:
    # What the streams of a warm-up leave behind would be missing from the memory that streams take.
    streams = _FEW_STREAMS if scenario.kind is Kind.MEMORY else _WARM_STREAMS
    # Of a slow engine, no more than come in about a second.
    tokens = min(_WARM_TOKENS, max(2, scenario.rate)) if scenario.rate else _WARM_TOKENS
    burst(site, gateway, streams=streams, tokens=tokens, seconds_max=_WARM_SECONDS_MAX)
