"""The report of a benchmark: Markdown and plots. `python -m bench.report RESULTS.json` writes both again."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import sections
from bench.columns import bold
from bench.goals import FIREHOSE, PACED
from bench.results import Results
from bench.table import table


def write(results: Results, folder: Path) -> list[Path]:
    """Writes README.md and the plots into a folder and returns their paths. Without matplotlib there are no plots."""
    plots: list[Path] = []
    try:
        from bench.plots import draw
    except ModuleNotFoundError as error:
        print(f"no plots: {error.name} is not installed (make bench installs it)", file=sys.stderr)
    else:
        plots = draw(results, folder)
    text = folder / "README.md"
    text.write_text(markdown(results, [one.name for one in plots]))
    return [text, *plots]


def markdown(results: Results, plots: Sequence[str] = ()) -> str:
    """Returns the report.

    Args:
        results: what was measured.
        plots: names of image files that are shown.
    """
    told = (
        ("How it was measured", _method(results)),
        ("What was not measured", _absent(results)),
        ("Goals", sections.goals(results)),
        ("CPU per token, paced", sections.cpu(results, PACED)),
        ("CPU per token, firehose", sections.cpu(results, FIREHOSE)),
        ("Cost of a call", sections.calls(results)),
        ("Added latency", sections.latency(results)),
        ("Time to the first token", sections.first_token(results)),
        ("Memory", sections.memory(results)),
        ("Messages and system calls per token", sections.messages(results)),
        ("Saturation", sections.saturation(results)),
        ("Two processes", sections.two_processes(results)),
        ("Dialects", sections.dialects(results)),
        ("Cost of the load programs", sections.load(results)),
        ("Checks by other programs", sections.checks(results)),
        ("Prefix reuse", sections.prefix(results)),
    )
    images = "\n\n".join(f"![{one.rsplit('.', 1)[0].replace('-', ' ')}]({one})" for one in plots)
    parts = ["# Benchmark", _intro(results), images, *(f"## {title}\n\n{text}" for title, text in told)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _intro(results: Results) -> str:
    rounds = f"up to {results.rounds} rounds" if results.rounds > 1 else "one round"
    return (
        f"What tokenwire costs beside other gateways, measured {results.started} ({results.mode} run, {rounds}). A "
        "table shows the median over the rounds and, in brackets, the smallest and the largest value. Less is better "
        "unless a table says otherwise; systems are sorted by the first column. A ratio to another system is taken "
        "round by round, then its median. Ratios travel between machines, levels do not."
    )


def _method(results: Results) -> str:
    machine = table(("machine", ""), list(results.machine.items()), left=2)
    versions = table(("system", "version"), [(bold(name), one) for name, one in results.versions.items()], left=2)
    return (
        "A stand-in for an engine writes tokens; a client reads them through the gateway and counts each. A token's "
        "text is the time at which the engine wrote it, so its latency is what the gateway, the kernel and the load "
        "programs add. In each round every system has its turn, in random order; no other system runs meanwhile. CPU "
        "time is user and system time of the gateway and its children; what the calls themselves cost is taken off "
        "where it is told per token. A run counts only if every call ended well, every token came, and neither the "
        f"stand-in nor the client was near what a core can do.\n\n{machine}\n\n{versions}"
    )


def _absent(results: Results) -> str:
    parts = []
    if results.absent:
        parts.append(table(("absent system", "why"), sorted(results.absent.items()), left=2))
    else:
        parts.append("No system is absent.")
    void: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for one in results.samples:
        if one.void:
            void[one.system, one.scenario, one.void].append(one.round)
    if void:
        rows = [(*key, ", ".join(map(str, sorted(rounds)))) for key, rounds in sorted(void.items())]
        heads = ("void runs of", "scenario", "why", "rounds")
        count = sum(map(len, void.values()))
        text = f"Of {len(results.samples)} runs, {count} {'does' if count == 1 else 'do'} not count."
        parts.append(f"{text}\n\n{table(heads, rows, left=4)}")
    else:
        parts.append(f"All {len(results.samples)} runs count.")
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a report again, beside its results."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("results", metavar="RESULTS.json", type=Path)
    path = parser.parse_args(arguments).results
    for one in write(msgspec.json.decode(path.read_bytes(), type=Results), path.parent):
        print(one)


if __name__ == "__main__":
    main()
