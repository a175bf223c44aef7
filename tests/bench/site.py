"""What all measurements share: the load programs, a collector, ports and a folder."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from bench.client import Client
from bench.collecting import Sink, collecting
from bench.engine import Engine, engine
from bench.ports import Ports


class LoadPrograms(Protocol):
    """Where the load programs are."""

    @property
    def engine(self) -> Path:
        """The engine's."""
        ...

    @property
    def client(self) -> Path:
        """The client's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where gateways are measured.

    Attributes:
        client: starts load clients.
        engine: the load engine, which runs all the time.
        collector: where spans and metrics go.
        ports: for gateways.
        folder: everything that is written meanwhile; removed afterwards.
    """

    client: Client
    engine: Engine
    collector: Sink
    ports: Ports
    folder: Path


@contextmanager
def open_site(programs: LoadPrograms, rates: Iterable[int], rng: Random) -> Iterator[Site]:
    """Starts what all measurements share, and ends it with the block.

    Args:
        programs: the load programs.
        rates: at which the engine is needed.
        rng: chooses ports.
    """
    ports = Ports(rng)
    # Short: the path of a Unix socket below it may have a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="tokenwire-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = stack.enter_context(engine(programs.engine, rates, ports, folder))
        sink = stack.enter_context(collecting(ports, folder))
        yield Site(client=Client(programs.client), engine=made, collector=sink, ports=ports, folder=folder)
