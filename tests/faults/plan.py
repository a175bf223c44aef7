"""What happens in one schedule of faults: a function of its seed."""

from dataclasses import dataclass
from random import Random

# What may happen with the journal of one gateway in files, and with one in Redis that two share.
FILE_FAULTS = (
    "engine killed",
    "engine frozen",
    "engine line cut",
    "engine line garbled",
    "gateway killed",
    "gateway killed twice",
    "gateway drained",
    "client killed",
    "client lines cut",
    "client line slow",
    "client line black",
)
REDIS_FAULTS = (
    "engine killed",
    "gateway killed",
    "gateway frozen",
    "gateway drained",
    "redis killed",
    "redis line cut",
    "client killed",
    "client lines cut",
)
# Which faults the schedules of each kind begin with, so that every one of them comes about.
FAULTS = {"file": FILE_FAULTS, "redis": REDIS_FAULTS}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One stream.

    Attributes:
        prompt: its prompt; no other has it.
        tokens: of each choice.
        n: choices.
        size: bytes of each piece; 0: as it comes.
    """

    prompt: str
    tokens: int
    n: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        name: what happens.
        at: when: once this share of all tokens was read.
        victim: chooses whom it hits.
        seconds: how long it lasts.
    """

    name: str
    at: float
    victim: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A schedule.

    Attributes:
        seed: makes it.
        kind: file or redis.
        streams: what is asked, all at once.
        faults: in the order of their times.
    """

    seed: int
    kind: str
    streams: tuple[Asked, ...]
    faults: tuple[Fault, ...]

    def told(self) -> str:
        """Returns it for people."""
        faults = "\n".join(f"  {one.at:.2f} {one.name}, {one.victim}, {one.seconds:.2f} s" for one in self.faults)
        return f"pytest tests/faults/test_schedules.py --fault-seed {self.seed}\n{faults}"


def plan(seed: int) -> Plan:
    """Returns the schedule of a seed: one in three is for Redis."""
    rng = Random(seed)
    kind = "redis" if seed % 3 == 2 else "file"
    faults = FAULTS[kind]
    # Seeds in a row go through the list.
    names = [faults[seed // 3 % len(faults) if kind == "redis" else (seed - seed // 3) % len(faults)]]
    names += rng.choices(faults, k=rng.randint(2, 4))
    return Plan(
        seed=seed,
        kind=kind,
        streams=tuple(
            Asked(
                prompt=f"Schedule {seed}, stream {number}:",
                tokens=rng.randint(40, 120),
                n=rng.choice((1, 1, 2)),
                size=rng.choice((0, 0, 7, 40)),
            )
            for number in range(rng.randint(4, 6))
        ),
        faults=tuple(
            sorted(
                (
                    Fault(
                        name=name,
                        at=rng.uniform(0.0, 0.85),
                        victim=rng.randrange(100),
                        seconds=rng.choice((0.0, rng.uniform(0.0, 0.3))),
                    )
                    for name in names
                ),
                key=lambda one: one.at,
            )
        ),
    )
