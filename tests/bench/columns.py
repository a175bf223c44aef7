"""Tables of figures: a row for each system, the best one first."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bench.results import Results
from bench.rows import is_ours
from bench.spread import Spread, ratios, spread
from bench.table import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure of every system.

    Attributes:
        head: with the unit.
        scenario: under which load.
        figure: the figure's name.
        to: a system; its ratio to that one's, round by round, is shown instead.
        to_scenario: a scenario; the ratio to the same system's figure there is shown instead.
        factor: makes the head's unit of the figure's.
    """

    head: str
    scenario: str
    figure: str
    to: str = ""
    to_scenario: str = ""
    factor: float = 1.0

    def measure(self, results: Results, system: str) -> Spread | None:
        """Returns median and range of a system's figure; None: there is none."""
        values = results.values(system, self.scenario, self.figure)
        if self.to or self.to_scenario:
            other = results.values(self.to or system, self.to_scenario or self.scenario, self.figure)
            return spread(ratios(values, other).values())
        found = spread(values.values())
        return found.times(self.factor) if found else None

    def cell(self, results: Results, system: str) -> str:
        """Returns what the table shows for a system."""
        found = self.measure(results, system)
        if found is not None:
            return "1" if self.to == system else found.text()
        runs = [one for one in results.samples if one.system == system and one.scenario == self.scenario]
        return "void" if runs and all(one.void for one in runs) else "-"


def figures(
    results: Results, columns: Sequence[Column], *, largest_first: bool = False, only: Collection[str] = ()
) -> str:
    """Returns a table of systems, sorted by the first column, with the number of rounds in which that was measured.

    Args:
        results: what was measured.
        columns: what the table shows; of none there is no table, but an empty text.
        largest_first: more is better.
        only: these systems; none: all that were run in any of the columns' scenarios. Of none there is no table.
    """
    rows = _systems(results, columns)
    if only:
        rows &= set(only)

    def place(system: str) -> tuple[float, str]:
        found = columns[0].measure(results, system)
        if found is None:
            return math.inf, system
        return (-found.median if largest_first else found.median), system

    def cells(system: str) -> list[str]:
        found = columns[0].measure(results, system)
        shown = (column.cell(results, system) for column in columns)
        return [bold(system), *shown, str(found.count if found else 0)]

    heads = ["system", *(column.head for column in columns), "rounds"]
    return table(heads, map(cells, sorted(rows, key=place))) if rows else ""


def scenarios(results: Results, kind: str) -> list[str]:
    """Returns the scenarios of a kind that were run, such as memory/1, memory/1000 of memory, by number of streams."""
    found = {one.scenario for one in results.samples if one.scenario.split("/")[0] == kind}
    return sorted(found, key=lambda one: (streams(one), one))


def carrying(results: Results, figure: str) -> list[str]:
    """Returns the scenarios in which any system has a figure."""
    found = {one.scenario for one in results.samples if figure in one.values and not one.void}
    return sorted(found, key=lambda one: (one.split("/")[0] != "paced", one.split("/")[0], streams(one)))


def streams(scenario: str) -> int:
    """Returns the number of streams that a scenario's name ends with; 0 if it does not."""
    end = scenario.rsplit("/", 1)[-1]
    return int(end) if end.isdecimal() else 0


def bold(system: str) -> str:
    """Returns a system's name, in bold if it is ours."""
    return f"**{system}**" if is_ours(system) else system


def _systems(results: Results, columns: Iterable[Column]) -> set[str]:
    asked = {column.scenario for column in columns}
    return {one.system for one in results.samples if one.scenario in asked}
