"""Gateways on grpc.aio that were written for the comparison alone."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from bench.goals import BARE, IDIOMATIC
from bench.system import Dialect, Launch, Stage, System, Wire
from bench.systems.requests import GENERATE_PATH, generate

_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prototype:
    """A gateway of ours; see `System`.

    Attributes:
        module: what is run, with the port and the engine's port as its arguments.
        needs: packages that it imports, by the names of their distributions.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    wire: Wire = Wire.GRPC
    path: str = GENERATE_PATH
    dialect: Dialect = Dialect.COMPLETIONS

    def absent(self) -> str:
        """Returns which package is missing; empty if none is."""
        missing = [one for one in self.needs if find_spec(one) is None]
        return f"{', '.join(missing)} not installed" if missing else ""

    def version(self) -> str:
        """Returns the versions of what it is made of."""
        names = [_distribution(one) for one in self.needs]
        return ", ".join(f"{one} {version(one)}" for one in names)

    def launch(self, stage: Stage) -> Launch:
        """Returns how it is started."""
        command = [sys.executable, "-m", self.module, str(stage.port), str(stage.engine_port)]
        folders = (_ROOT / "tests", _ROOT / "service")
        return Launch(command=command, environment={"PYTHONPATH": ":".join(str(one) for one in folders)})

    def request(self, tokens: int) -> bytes:
        """Returns a request for so many tokens."""
        return generate(tokens)


PROTOTYPES: Sequence[System] = (
    Prototype(name=BARE, module="bench.gateways.bare", needs=("grpc", "msgspec", "uvloop")),
    Prototype(name=IDIOMATIC, module="bench.gateways.idiomatic", needs=("grpc", "httpx", "uvloop")),
)


def _distribution(package: str) -> str:
    return "grpcio" if package == "grpc" else package
