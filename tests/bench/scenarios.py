"""What is measured of a gateway, and how often in which mode."""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from bench.goals import BARE, SGLANG_ROUTER
from bench.rows import GOAL_ROWS, OURS


class Mode(StrEnum):
    """How long it may take."""

    QUICK = "quick"
    FULL = "full"


class Kind(Enum):
    """What is done with a gateway."""

    # Streams at a steady rate: CPU time and latency.
    PACED = auto()
    # Streams as fast as they go: CPU time.
    FIREHOSE = auto()
    # Calls with one token: CPU time.
    CALL = auto()
    # Calls with one token: time.
    FIRST_TOKEN = auto()
    # Many slow streams open at once.
    MEMORY = auto()
    # System calls, counted from outside.
    SYSCALLS = auto()
    # More and more streams, until it cannot keep up.
    SATURATION = auto()


class Takers(Enum):
    """Which systems take part if nobody chooses."""

    # All rows.
    EVERY = auto()
    # All but those that one scenario is enough for.
    SETTINGS = auto()
    # tokenwire with everything on, and everybody else.
    NAMES = auto()
    # tokenwire with everything on.
    OURS = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much of a mode's time a scenario gets.

    Attributes:
        rounds: for the systems that the scenario compares.
        other_rounds: for the others.
        seconds: that tokens flow, in each round.
    """

    rounds: int
    other_rounds: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of load.

    Attributes:
        name: as in the results.
        visit: scenarios of one visit are measured one after the other on one start of a gateway, in the order of the
            table.
        kind: what is done.
        streams: how many at the same time; where it rises, the first number.
        rate: tokens per second of each stream; 0: as fast as they go.
        takers: who takes part.
        compared: those of them whose figures are compared most.
        quick: the effort in quick mode.
        full: the effort in full mode.
        copies: how many gateways share the streams.
    """

    name: str
    visit: str
    kind: Kind
    streams: int
    rate: int
    takers: Takers
    compared: frozenset[str]
    quick: Effort
    full: Effort
    copies: int = 1

    def effort(self, mode: Mode) -> Effort:
        """Returns the effort in a mode."""
        return self.full if mode is Mode.FULL else self.quick


def _effort(rounds: int, other_rounds: int, seconds: float) -> Effort:
    return Effort(rounds=rounds, other_rounds=other_rounds, seconds=seconds)


# Whom most figures compare; all others need fewer rounds there.
_COMPARED = frozenset({OURS, BARE, SGLANG_ROUTER})


def _latency(streams: int, rate: int, quick: Effort, full: Effort) -> Scenario:
    # The streams of a thousand have less each, so that one process can carry them together.
    return Scenario(
        name=f"latency/{streams}",
        visit=f"latency at {rate}",
        kind=Kind.PACED,
        streams=streams,
        rate=rate,
        takers=Takers.NAMES,
        compared=_COMPARED,
        quick=quick,
        full=full,
    )


def _memory(streams: int, quick: Effort, full: Effort) -> Scenario:
    # Each on a start of its own: a process keeps memory that it has once had.
    return Scenario(
        name=f"memory/{streams}",
        visit=f"memory of {streams}",
        kind=Kind.MEMORY,
        streams=streams,
        rate=1,
        takers=Takers.NAMES,
        compared=_COMPARED,
        quick=quick,
        full=full,
    )


def _first_token(streams: int) -> Scenario:
    return Scenario(
        name=f"ttft/{streams}",
        visit="first token",
        kind=Kind.FIRST_TOKEN,
        streams=streams,
        rate=0,
        takers=Takers.NAMES,
        compared=_COMPARED,
        quick=_effort(1, 0, 0.3),
        full=_effort(2, 1, 0.5),
    )


SCENARIOS = (
    Scenario(
        name="paced/100",
        visit="paced",
        kind=Kind.PACED,
        streams=100,
        rate=50,
        takers=Takers.EVERY,
        compared=GOAL_ROWS,
        quick=_effort(5, 1, 1.8),
        full=_effort(7, 5, 3.5),
    ),
    Scenario(
        name="call",
        visit="full speed",
        kind=Kind.CALL,
        streams=100,
        rate=0,
        takers=Takers.SETTINGS,
        compared=_COMPARED,
        quick=_effort(5, 1, 0.3),
        full=_effort(6, 2, 1),
    ),
    Scenario(
        name="firehose/100",
        visit="full speed",
        kind=Kind.FIREHOSE,
        streams=100,
        rate=0,
        takers=Takers.SETTINGS,
        compared=_COMPARED,
        quick=_effort(5, 1, 0.6),
        full=_effort(6, 2, 1.5),
    ),
    *(_first_token(streams) for streams in (1, 32, 256, 1000)),
    _latency(1, 50, _effort(1, 1, 1), _effort(5, 2, 3)),
    _latency(32, 50, _effort(1, 1, 1), _effort(5, 2, 2)),
    _latency(256, 50, _effort(2, 1, 1.8), _effort(5, 2, 3)),
    _latency(1000, 10, _effort(1, 0, 2), _effort(3, 2, 3)),
    _memory(100, _effort(0, 0, 1), _effort(1, 1, 2)),
    _memory(300, _effort(0, 0, 1), _effort(1, 1, 2)),
    _memory(1000, _effort(1, 1, 2), _effort(3, 1, 2)),
    Scenario(
        name="syscalls/100",
        visit="system calls",
        kind=Kind.SYSCALLS,
        streams=100,
        rate=10,
        takers=Takers.NAMES,
        compared=_COMPARED,
        quick=_effort(1, 0, 1.5),
        full=_effort(2, 1, 2),
    ),
    Scenario(
        name="saturation",
        visit="saturation",
        kind=Kind.SATURATION,
        streams=60,
        rate=100,
        takers=Takers.NAMES,
        compared=_COMPARED,
        quick=_effort(1, 0, 1.5),
        full=_effort(2, 1, 3),
    ),
    Scenario(
        name="two-processes",
        visit="two processes",
        kind=Kind.SATURATION,
        streams=120,
        rate=100,
        takers=Takers.OURS,
        compared=_COMPARED,
        quick=_effort(1, 0, 1.5),
        full=_effort(2, 0, 3),
        copies=2,
    ),
)
