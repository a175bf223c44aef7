"""A benchmark: starts what it needs, pays all visits of a plan, and keeps what was measured whatever happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from bench import checks
from bench.plan import Plan, Visit
from bench.progress import Watcher
from bench.results import Results, Sample
from bench.site import LoadPrograms, open_site
from bench.system import System
from bench.systems.registry import slug
from bench.visiting import pay

RESULTS_FILE = "results.json"


@dataclass(slots=True, kw_only=True)
class Benchmark:
    """What has been measured so far.

    Attributes:
        plan: what is measured.
        systems: by name.
        absent: why the others are not measured.
        folder: for the results, and for what a gateway says when its sample is void.
        watcher: who is told.
        started: by the wall clock.
        machine: what it runs on.
        samples: all so far.
        checks: what other load programs have counted beside ours, once they have.
    """

    plan: Plan
    systems: Mapping[str, System]
    absent: Mapping[str, str]
    folder: Path
    watcher: Watcher
    started: datetime
    machine: Mapping[str, str]
    samples: list[Sample] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    def run(self, programs: LoadPrograms, rng: Random, *, checked: Sequence[str] = ()) -> None:
        """Measures everything. What is measured when it is interrupted, or fails, stays in `samples` and in the folder.

        Args:
            programs: the load programs.
            rng: chooses ports.
            checked: systems at which other load programs count as well, at the end.

        Raises:
            RuntimeError: if a load program or the collector does not start, or has ended.
        """
        rates = {scenario.rate for visit in self.plan.visits for scenario in visit.scenarios}
        if checked:
            rates.add(checks.RATE)
        with open_site(programs, rates, rng) as site:
            for visit in self.plan.visits:
                self.watcher.begins(visit)
                outcome = pay(site, self.systems[visit.system], visit, self.plan.mode)
                for sample in outcome.samples:
                    self.samples.append(sample)
                    self.watcher.measured(sample)
                if outcome.said:
                    self._keep(visit, outcome.said)
                self.watcher.ends(visit)
                self.save()
                if told := site.engine.child.ended() or site.collector.child.ended():
                    raise RuntimeError(f"{told}; nothing can be measured any more")
            if checked:
                self.watcher.says("other load programs count, too")
                self.checks = checks.check(site, [self.systems[name] for name in checked])

    @property
    def good(self) -> bool:
        """Whether all samples count and all load programs have counted the same."""
        return not any(one.void for one in self.samples) and not any(row["agree"] is False for row in self.checks)

    def results(self) -> Results:
        """Returns what has been measured so far."""
        return Results(
            mode=self.plan.mode,
            started=self.started.isoformat(timespec="seconds"),
            machine=dict(self.machine),
            versions={name: one.version() for name, one in self.systems.items()},
            absent=dict(self.absent),
            rounds=self.plan.rounds,
            samples=self.samples,
            checks=self.checks,
        )

    def save(self, change: Callable[[Results], Results] = lambda one: one) -> Results:
        """Writes the results so far, as `change` makes them, and returns them."""
        results = change(self.results())
        unfinished = self.folder / f"{RESULTS_FILE}.new"
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        # Who reads it meanwhile finds the last one whole.
        unfinished.replace(self.folder / RESULTS_FILE)
        return results

    def _keep(self, visit: Visit, said: str) -> None:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        scenarios = slug(" ".join(one.name for one in visit.scenarios))
        (logs / f"{visit.round}-{slug(visit.system)}-{scenarios}.log").write_text(said + "\n")
