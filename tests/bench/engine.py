"""The load engine: stands in for a model server, at several rates at once."""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.child import Child
from bench.ports import Ports

_START_SECONDS = 10


class Engine:
    """An engine that runs.

    Attributes:
        child: its process.
        ports: where it listens, by the tokens per second that each of its streams has there; 0: as many as are taken.
    """

    def __init__(self, child: Child, ports: Mapping[int, int]) -> None:
        self.child = child
        self.ports = ports


@contextmanager
def engine(program: Path, rates: Iterable[int], ports: Ports, folder: Path) -> Iterator[Engine]:
    """Runs an engine while the block runs. Raises RuntimeError if it does not start.

    Args:
        program: the engine's.
        rates: tokens per second of a stream; each gets a port.
        ports: where to take them from.
        folder: for its files.
    """
    by_rate = {rate: ports.take() for rate in sorted(set(rates))}
    command = [str(program), *(f"{port}:{rate}" for rate, port in by_rate.items())]
    with Child("engine", command, folder=folder) as child:
        deadline = time.monotonic() + _START_SECONDS
        while not all(takes_connections(port) for port in by_rate.values()):
            if child.ended() or time.monotonic() > deadline:
                raise RuntimeError(f"the load engine does not start: {child.ended()} {child.said().strip()}")
            time.sleep(0.01)
        yield Engine(child, by_rate)


def takes_connections(port: int) -> bool:
    """Tells whether something listens at a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
