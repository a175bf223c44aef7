"""Who is measured in what, when, and how long that takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from bench.goals import IDIOMATIC, LITELLM
from bench.rows import OURS, PACED_ONLY, is_ours
from bench.scenarios import SCENARIOS, Effort, Kind, Mode, Scenario, Takers

# Starting, warming up, settling and ending.
_VISIT_SECONDS = 2.5
_SCENARIO_SECONDS = 0.6
# How many times the planned seconds a scenario takes, roughly, beside calls alone.
_LENGTHS = {Kind.SATURATION: 7.0, Kind.FIREHOSE: 2.0, Kind.MEMORY: 2.0, Kind.SYSCALLS: 2.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowness:
    """What is slow about a system, roughly.

    Attributes:
        start_seconds: it takes so much longer to start.
        token_us: CPU time of a token.
    """

    start_seconds: float = 0.0
    token_us: float = 40.0


_SLOW = {LITELLM: Slowness(start_seconds=12, token_us=480), IDIOMATIC: Slowness(token_us=80)}
# What costs more than this has fewer rounds.
_SLOW_TOKEN_US = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One start of one system, and what is measured then.

    Attributes:
        round: counted from 1.
        system: its name.
        scenarios: in this order.
    """

    round: int
    system: str
    scenarios: tuple[Scenario, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole benchmark.

    Attributes:
        mode: quick or full.
        visits: in this order.
        rounds: how many.
    """

    mode: Mode
    visits: tuple[Visit, ...]
    rounds: int

    @property
    def seconds(self) -> float:
        """How long it takes, roughly."""
        return sum(visit_seconds(one, self.mode) for one in self.visits)


def make_plan(
    systems: Sequence[str],
    *,
    mode: Mode,
    rng: Random,
    scenarios: Sequence[str] = (),
    rounds: int = 0,
    chosen: bool = False,
) -> Plan:
    """Returns who is measured when.

    A round measures one visit's scenarios of all systems, in random order, before the next visit's, so that what is
    compared runs side by side.

    Args:
        systems: by name.
        mode: quick or full.
        rng: for the order.
        scenarios: by name; none: all.
        rounds: so many for all; 0: as the scenarios have it.
        chosen: whether somebody named the systems and the scenarios: then each is measured in all of them.
    """
    wanted = [one for one in SCENARIOS if not scenarios or one.name in scenarios]
    names = list(dict.fromkeys(one.visit for one in wanted))
    counts = {(system, one.name): _rounds(system, one, mode, rounds, chosen) for system in systems for one in wanted}
    most = max(counts.values(), default=0)
    visits: list[Visit] = []
    for number in range(1, most + 1):
        for name in names:
            order = list(systems)
            rng.shuffle(order)
            for system in order:
                taken = tuple(one for one in wanted if one.visit == name and counts[system, one.name] >= number)
                if taken:
                    visits.append(Visit(round=number, system=system, scenarios=taken))
    return Plan(mode=mode, visits=tuple(visits), rounds=most)


def visit_seconds(visit: Visit, mode: Mode) -> float:
    """Returns how long a visit takes, roughly."""
    slow = _SLOW.get(visit.system, Slowness())
    return _VISIT_SECONDS + slow.start_seconds + sum(_seconds(one, one.effort(mode), slow) for one in visit.scenarios)


def _seconds(scenario: Scenario, effort: Effort, slow: Slowness) -> float:
    asked = scenario.streams * scenario.rate * slow.token_us / 1e6
    length = effort.seconds * _LENGTHS.get(scenario.kind, 1.0)
    if scenario.kind is Kind.PACED:
        # A process that is asked for more than a core can do takes longer.
        length *= max(1.0, asked)
    return _SCENARIO_SECONDS + length


def _rounds(system: str, scenario: Scenario, mode: Mode, rounds: int, chosen: bool) -> int:
    effort = scenario.effort(mode)
    compared = system in scenario.compared
    if chosen:
        return rounds or max(1, effort.rounds)
    if not _takes(system, scenario.takers):
        return 0
    usual = effort.rounds if compared else effort.other_rounds
    if not compared and _SLOW.get(system, Slowness()).token_us > _SLOW_TOKEN_US:
        # Once is enough to tell how far behind it is, and the dearest scenarios wait for the full benchmark.
        cheap = mode is Mode.FULL or scenario.kind in (Kind.CALL, Kind.FIREHOSE)
        usual = min(usual, 1) if cheap else 0
    return rounds if rounds and usual else usual


def _takes(system: str, takers: Takers) -> bool:
    match takers:
        case Takers.EVERY:
            return True
        case Takers.SETTINGS:
            return system not in PACED_ONLY
        case Takers.NAMES:
            return system == OURS or not is_ours(system)
        case Takers.OURS:
            return system == OURS
