"""All that a schedule plays with, and the record of what happened."""

import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from harness.history import Reading
from simulation.engine import Machine
from simulation.gateway import Gateway
from simulation.loop import VirtualLoop
from simulation.network import FAIR, Line, Weather
from tokenwire.dispatch.run import Run
from tokenwire.journal.log import RunLog

_MEMORY = Path("/dev/shm")


class World:
    """Machines, gateways and clients of one schedule.

    Attributes:
        seed: the schedule's.
        rng: decides everything.
        closing: is closed when all is over.
        trace: what happened, and when.
        fired: how often each kind of fault came about.
        problems: promises that were broken.
        runs: every run, by its id, as each gateway that knew it had it, in that order.
        readings: every call that streamed.
        retention: seconds for which runs are kept.
        lossy: whether what readers saw may be lost, if only they are told.
        alone: whether gateways may have to go on without knowing of each other.
    """

    def __init__(self, seed: int, rng: random.Random, loop: VirtualLoop) -> None:
        self.seed = seed
        self.rng = rng
        self.loop = loop
        self.closing = ExitStack()
        self.trace: list[tuple[float, str]] = []
        self.fired: Counter[str] = Counter()
        self.problems: list[str] = []
        self.machines: list[Machine] = []
        self.gateways: list[Gateway] = []
        self.graves: list[Gateway] = []
        self.runs: defaultdict[str, list[tuple[Gateway, Run]]] = defaultdict(list)
        self.readings: list[Reading] = []
        self.lossy = False
        self.alone = False
        self.retention = 300.0
        self.seen: Counter[str] = Counter()

    def folder(self) -> Path:
        """Returns an empty folder, in memory where that is possible."""
        made = Path(tempfile.mkdtemp(prefix="simulation", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.closing.callback(shutil.rmtree, made)
        return made

    def note(self, text: str, kind: str = "") -> None:
        """Takes something to the record; `kind` if it is a fault that was meant to happen."""
        self.trace.append((self.loop.time(), text))
        if kind:
            self.fired[kind] += 1

    def problem(self, text: str) -> None:
        """Takes a broken promise to the record."""
        self.note(f"!! {text}")
        self.problems.append(text)

    def machine(self, name: str, prompts: Sequence[str], *, ids: bool = True) -> Machine:
        """Makes an engine's machine."""
        pace = self.rng.choice((0.0, 0.02, 0.1, 1.0, 1.0))
        one = Machine(name, prompts, random.Random(self.rng.random()), self.note, pace=pace, ids=ids)
        self.machines.append(one)
        return one

    def watch(self, gateway: Gateway, run: Run) -> None:
        """Takes a run that a gateway got to know to the record."""
        self.runs[run.id].append((gateway, run))
        self.note(f"{gateway.name} has {run.id}, {run.log.head} events")

    def call(self, gateway: Gateway, method: str, request: object, weather: Weather = FAIR) -> Line:
        """Begins a call."""
        line = Line(self.rng, weather, self.note)
        gateway.call(line, method, request)
        return line

    def log(self, run_id: str) -> RunLog | None:
        """Returns what there is of a run in the end: of its last writer, else what is committed at most."""
        known = self.runs.get(run_id)
        if not known:
            return None
        return max((run.log for _, run in known), key=lambda log: (log.end is not None, log.epoch or 0, log.committed))

    def story(self, lines: int = 100) -> str:
        """Returns the last things that happened, to be read."""
        return "\n".join(f"{at:10.3f}  {text}" for at, text in self.trace[-lines:])
