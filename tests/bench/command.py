"""The command line: `python -m bench`."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import FrameType
from typing import TypeVar

from bench.benchmark import Benchmark
from bench.finishing import finish
from bench.goals import BARE, TOKENWIRE
from bench.machine import busy_cores, machine
from bench.measures import syscalls
from bench.plan import make_plan
from bench.programs import ProgramsError, ensure
from bench.progress import Watcher, watcher
from bench.scenarios import SCENARIOS, Kind, Mode
from bench.system import System
from bench.systems.registry import all_systems, slug

_T = TypeVar("_T")
DONE, SOME_VOID, USAGE, INTERRUPTED = 0, 1, 2, 130
# Of what others use, as much as is not worth a word.
_BUSY_CORES = 0.2
_FOLDER = Path(__file__).parents[2] / ".cache" / "bench" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a benchmark and returns the exit code.

    0: done. 1: a sample is void, other load programs counted otherwise, or a load program has ended. 2: wrong usage, or
    the load programs cannot be built. 130: interrupted, with what was measured until then written.
    """
    asked = _parser().parse_args(arguments)
    everything = all_systems()
    try:
        systems = _chosen(asked.systems, {slug(one.name): one for one in everything}, "system")
        scenarios = _chosen(asked.scenarios, {one.name: one.name for one in SCENARIOS}, "scenario")
    except ValueError as error:
        print(f"bench: {error}; --list tells what there is", file=sys.stderr)
        return USAGE
    if asked.list:
        _list(everything)
        return DONE
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _interrupt)
    with watcher(json=asked.json) as told:
        try:
            return _measure(asked, systems, scenarios, told)
        except ProgramsError as error:
            told.says(f"bench: {error}")
            return USAGE
        except KeyboardInterrupt:
            # Before anything was measured.
            told.says("interrupted")
            return INTERRUPTED


def _measure(asked: argparse.Namespace, systems: Sequence[System], scenarios: Sequence[str], told: Watcher) -> int:
    started = datetime.now(UTC)
    programs = ensure()
    absent = _absent(systems, told)
    if why := syscalls.absent():
        counting = {one.name for one in SCENARIOS if one.kind is Kind.SYSCALLS}
        scenarios = [one for one in scenarios if one not in counting]
        absent |= dict.fromkeys(counting, why)
        told.says(f"system calls are not counted: {why}")
    there = {one.name: one for one in systems if one.name not in absent}
    rng = Random(asked.seed)
    plan = make_plan(
        list(there),
        mode=Mode.FULL if asked.full else Mode.QUICK,
        rng=rng,
        scenarios=scenarios,
        rounds=asked.rounds,
        chosen=bool(asked.systems and asked.scenarios),
    )
    folder = (asked.out or _FOLDER / started.strftime("%Y-%m-%d-%H%M%S")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    busy = busy_cores()
    if busy > _BUSY_CORES:
        told.says(f"others use {busy:.1f} of {os.cpu_count()} cores: figures will be worse than on a machine at rest")
    benchmark = Benchmark(
        plan=plan,
        systems=there,
        absent=absent,
        folder=folder,
        watcher=told,
        started=started,
        machine=machine(busy=busy),
    )
    told.planned(plan)
    # Who chooses scenarios wants these and nothing else.
    checked = [one for one in (TOKENWIRE, BARE) if one in there and not asked.scenarios]
    code = DONE
    try:
        benchmark.run(programs, rng, checked=checked)
    except KeyboardInterrupt:
        told.says("interrupted: what was measured until now is kept")
        code = INTERRUPTED
    except RuntimeError as error:
        told.says(str(error))
        code = SOME_VOID
    if code == DONE and not benchmark.good:
        code = SOME_VOID
    finish(benchmark, prefix=asked.prefix)
    return code


def _absent(systems: Sequence[System], told: Watcher) -> dict[str, str]:
    absent = {}
    for one in systems:
        if why := one.absent():
            absent[one.name] = why
            told.says(f"{one.name} is not measured: {why}")
    return absent


def _chosen(names: str, there: Mapping[str, _T], kind: str) -> list[_T]:
    """Returns what a list of names with commas between them names; all for an empty one."""
    if not names:
        return list(there.values())
    wanted = [one.strip() for one in names.split(",") if one.strip()]
    if unknown := [one for one in wanted if one not in there]:
        raise ValueError(f"no {kind} is called {', '.join(unknown)}")
    return [one for name, one in there.items() if name in wanted]


def _list(systems: Sequence[System]) -> None:
    print("Systems:")
    for one in systems:
        print(f"  {slug(one.name):28} {one.name}")
    print("Scenarios:")
    for scenario in SCENARIOS:
        rate = f"{scenario.rate} tokens/s each" if scenario.rate else "full speed"
        copies = f", {scenario.copies} processes at ports of their own" if scenario.copies > 1 else ""
        print(f"  {scenario.name:28} {scenario.streams} streams, {rate}{copies}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures tokenwire beside other gateways.")
    parser.add_argument("--full", action="store_true", help="all of it, about 35 minutes; without it about ten")
    parser.add_argument("--rounds", type=_positive, default=0, help="as many for each scenario, instead of its own")
    parser.add_argument("--systems", default="", metavar="A,B", help="these only")
    parser.add_argument("--scenarios", default="", metavar="A,B", help="these only")
    parser.add_argument("--out", type=Path, help="the folder for the results; without it a new one in .cache/bench")
    parser.add_argument("--prefix", type=Path, help="what `python -m bench.prefix --out FILE` wrote, for the report")
    parser.add_argument("--json", action="store_true", help="tell the progress as JSON, an object a line")
    parser.add_argument("--seed", type=int, help="of the order; without it a new one each time")
    parser.add_argument("--list", action="store_true", help="tell which systems and scenarios there are")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
