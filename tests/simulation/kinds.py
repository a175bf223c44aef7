"""Which schedule a seed stands for."""

from collections.abc import Mapping

from simulation import clients, engines, replicas, restarts
from simulation.schedule import Outcome, Play, run

# A seed's kind is its remainder: the order counts.
KINDS: Mapping[str, Play] = {
    "clients": clients.play,
    "engines": engines.play,
    "restarts": restarts.play,
    "replicas": replicas.play,
}


def seeds(kind: str, count: int) -> range:
    """Returns the first seeds of a kind."""
    return range(list(KINDS).index(kind), count * len(KINDS), len(KINDS))


def kind_of(seed: int) -> str:
    """Returns a seed's kind."""
    return list(KINDS)[seed % len(KINDS)]


def play(seed: int) -> Outcome:
    """Plays a seed's schedule."""
    return run(KINDS[kind_of(seed)], seed)
