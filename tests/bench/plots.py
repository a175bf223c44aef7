"""The plots of a benchmark, as PNG files: our own systems in blue, all others in grey."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.columns import Column, scenarios, streams
from bench.goals import CPU, FIREHOSE, PACED, TOKENWIRE
from bench.results import Results
from bench.rows import is_ours
from bench.scenarios import SCENARIOS
from bench.spread import Spread, number, spread

# Told apart by those who see few colours, and from grey by everybody.
OURS = "#0072b2"
OTHERS = "#6b6b6b"
INK = "#222222"
FAINT = "#dddddd"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DOTS_PER_INCH = 150
# The height of a line of text.
LABEL_INCHES = 0.17
PERCENTILES: dict[str, Literal["-", "--", ":"]] = {"p50": "-", "p99": "--", "p99.9": ":"}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draws what there is and returns the files: cost-per-token.png, added-latency.png, memory.png."""
    drawn = []
    with rc_context(STYLE):
        for name, make in (("cost-per-token", cost), ("added-latency", latency), ("memory", memory)):
            figure = make(results)
            if figure is not None:
                path = folder / f"{name}.png"
                # The same results give the same file.
                figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
                drawn.append(path)
    return drawn


def cost(results: Results) -> Figure | None:
    """Returns CPU per token of every system, paced and at full speed; None: there is nothing to draw."""
    panels = {}
    for scenario, title in ((PACED, "100 streams at 50 tokens/s each"), (FIREHOSE, "100 streams at full speed")):
        found = _measured(results, Column(head="", scenario=scenario, figure=CPU))
        if found:
            panels[title] = found
    if not panels:
        return None
    rows = max(map(len, panels.values()))
    figure = Figure(figsize=(5.2 * len(panels), 1.6 + 0.3 * rows), layout="constrained")
    figure.suptitle("CPU time of the gateway per token", x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel("microseconds, log scale; dot: median, bar: smallest to largest round", fontsize=8)
    for axes, (title, found) in zip(_panels(figure, 1, len(panels)), panels.items(), strict=True):
        axes.set_title(title)
        _ranking(axes, found)
        axes.set_ylim(rows - 0.4, -0.6)
    return figure


def latency(results: Results) -> Figure | None:
    """Returns the added latency by number of streams, a panel for each system; None: there is nothing to draw."""
    lines: dict[str, dict[str, dict[int, Spread]]] = {}
    for scenario in scenarios(results, "latency"):
        for percentile in PERCENTILES:
            figure_name = f"added_{percentile.replace('.', '')}_us"
            for system, found in _measured(results, Column(head="", scenario=scenario, figure=figure_name)).items():
                lines.setdefault(system, {}).setdefault(percentile, {})[streams(scenario)] = found.times(1e-3)
    if not lines:
        return None
    counts = sorted({count for one in lines.values() for points in one.values() for count in points})
    across = min(4, len(lines))
    down = -(-len(lines) // across)
    figure = Figure(figsize=(max(9.5, 0.8 + 2.6 * across), max(4.2, 1.2 + 2.1 * down)), layout="constrained")
    figure.suptitle("Latency added to a token, by number of streams", x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(f"open streams, {_rates(results)}", fontsize=9)
    figure.supylabel("milliseconds, log scale; shaded: range over the rounds", fontsize=9)
    panels = _panels(figure, down, across)
    reference = lines.get(TOKENWIRE, {}).get("p99", {})
    for axes, system in zip(panels, sorted(lines, key=lambda one: _last(lines[one])), strict=False):
        axes.set_title(system, color=_colour(system))
        if reference and system != TOKENWIRE:
            axes.plot(*_medians(reference), "--", color=OURS, linewidth=1)
        for percentile, points in lines[system].items():
            _line(axes, points, _colour(system), PERCENTILES[percentile])
        _streams_axis(axes, counts)
        _log_ticks(axes, "y", [one for kind in lines.values() for points in kind.values() for one in points.values()])
    for axes in panels[len(lines) :]:
        axes.remove()
    entries = [Line2D([], [], color=INK, linestyle=style, label=name) for name, style in PERCENTILES.items()]
    if reference:
        entries.append(Line2D([], [], color=OURS, linewidth=1, linestyle="--", label=f"p99 of {TOKENWIRE}"))
    figure.legend(handles=entries, loc="upper right", ncols=len(entries), frameon=False, fontsize=8)
    return figure


def memory(results: Results) -> Figure | None:
    """Returns memory by number of streams, and what each adds at most streams; None: there is nothing to draw."""
    by_streams = {streams(one): one for one in scenarios(results, "memory")}
    lines = {one: _memory_line(results, one, by_streams) for one in sorted({one.system for one in results.samples})}
    lines = {system: points for system, points in lines.items() if points}
    if not lines:
        return None
    most = max(by_streams)
    height = max(4.0, 1.6 + 0.3 * len(lines))
    figure = Figure(figsize=(11.5, height), layout="constrained")
    figure.suptitle("Resident memory of a gateway", x=0.01, ha="left", fontsize=12, fontweight="bold")
    left, right = _panels(figure, 1, 2)
    left.set_title("in all, by number of open streams")
    left.set_ylabel("MiB, log scale; shaded: smallest to largest round", fontsize=8)
    for system, points in sorted(lines.items(), key=lambda one: is_ours(one[0])):
        _line(left, points, _colour(system), "-")
    left.set_xlabel("open streams; 0: idle, before the first")
    left.set_xticks([0, *_spaced(sorted(by_streams), most / 12)])
    left.set_xlim(-most / 40, most * 1.02)
    _log_ticks(left, "y", [one for points in lines.values() for one in points.values()])
    _end_labels(left, {system: points[max(points)].median for system, points in lines.items()}, height - 1.1)
    right.set_title(f"what each of {most} streams adds")
    right.set_xlabel("KiB, log scale; dot: median, bar: smallest to largest round", fontsize=8)
    growth = Column(head="", scenario=by_streams[most], figure="rss_bytes_per_stream", factor=1 / 1024)
    _ranking(right, _measured(results, growth))
    return figure


def _memory_line(results: Results, system: str, by_streams: Mapping[int, str]) -> dict[int, Spread]:
    """Returns the memory in all by number of streams, in MiB, the idle gateway's at 0."""
    points: dict[int, Spread] = {}
    for count, scenario in sorted(by_streams.items()):
        idle = results.values(system, scenario, "rss_idle_bytes")
        each = results.values(system, scenario, "rss_bytes_per_stream")
        total = spread((idle[one] + count * each[one]) / 2**20 for one in each if one in idle)
        empty = spread(idle[one] / 2**20 for one in each if one in idle)
        if total is not None and empty is not None:
            points |= {0: empty, count: total}
    return points


def _spaced(counts: Sequence[int], gap: float) -> list[int]:
    """Returns those that are far enough apart to be written below an axis."""
    kept: list[int] = []
    for one in sorted(counts, reverse=True):
        if one >= gap and (not kept or kept[-1] - one >= gap):
            kept.append(one)
    return kept


def _rates(results: Results) -> str:
    """Tells how fast the streams are; many may be slower, so that one process can carry them."""
    told = scenarios(results, "latency")
    rates = {one.streams: one.rate for one in SCENARIOS if one.name in told}
    usual = max(rates.values(), default=0)
    rest = [f"at {rate} with {count} streams" for count, rate in rates.items() if rate != usual]
    return ", ".join([f"each at {usual} tokens/s", *rest])


def _measured(results: Results, column: Column) -> dict[str, Spread]:
    systems = sorted({one.system for one in results.samples})
    found = {system: column.measure(results, system) for system in systems}
    # A log axis has no place for nothing.
    return {system: one for system, one in found.items() if one is not None and one.low > 0}


def _panels(figure: Figure, down: int, across: int) -> list[Axes]:
    return [figure.add_subplot(down, across, place + 1) for place in range(down * across)]


def _ranking(axes: Axes, found: Mapping[str, Spread]) -> None:
    """Draws a row for each system, the lowest on top."""
    ranked = sorted(found, key=lambda one: (found[one].median, one))
    for row, system in enumerate(ranked):
        one, colour = found[system], _colour(system)
        axes.plot([one.low, one.high], [row, row], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt")
        # Our own variants are hollow, as are none of the others.
        face = "white" if colour == OURS and system != TOKENWIRE else colour
        axes.plot([one.median], [row], "o", color=colour, markersize=5, markerfacecolor=face, markeredgewidth=1.5)
        axes.annotate(
            number(one.median, one.decimals),
            (one.high, row),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=8,
            fontweight=_weight(system),
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set_xscale("log")
    _log_ticks(axes, "x", list(found.values()), room=1.9)
    axes.set_yticks(range(len(ranked)), ranked)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    for system, name in zip(ranked, axes.get_yticklabels(), strict=True):
        name.set_color(_colour(system))
        name.set_fontweight(_weight(system))


def _line(axes: Axes, points: Mapping[int, Spread], colour: str, style: str) -> None:
    counts = sorted(points)
    low, high = ([getattr(points[one], end) for one in counts] for end in ("low", "high"))
    axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
    width = 2 if colour == OURS else 1.4
    axes.plot(*_medians(points), style, color=colour, linewidth=width, marker="o", markersize=3.5)


def _medians(points: Mapping[int, Spread]) -> tuple[list[int], list[float]]:
    return sorted(points), [points[one].median for one in sorted(points)]


def _last(percentiles: Mapping[str, Mapping[int, Spread]]) -> tuple[float, float]:
    """Sorts systems by their p99 at most streams; a system that did not get so far comes last."""
    points = percentiles.get("p99") or next(iter(percentiles.values()))
    return -max(points), points[max(points)].median


def _streams_axis(axes: Axes, counts: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(one) for one in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(counts[0] / 1.3, counts[-1] * 1.3)


def _log_ticks(axes: Axes, which: str, values: Sequence[Spread], room: float = 1.3) -> None:
    """Sets a log scale with ticks at 1, 2, 5, 10 ..., written out, around all values."""
    low, high = min(one.low for one in values) / 1.3, max(one.high for one in values) * room
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 3 else (1, 3) if len(decades) == 4 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axis, scale, limits = (
        (axes.xaxis, axes.set_xscale, axes.set_xlim) if which == "x" else (axes.yaxis, axes.set_yscale, axes.set_ylim)
    )
    scale("log")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())
    limits(low, high)


def _end_labels(axes: Axes, ends: Mapping[str, float], inches: float) -> None:
    """Writes the systems' names beside the ends of their lines.

    Args:
        axes: where the lines are.
        ends: the height of each line's end.
        inches: how high the axes are.
    """
    low, high = (math.log(one) for one in axes.get_ylim())
    first, last = axes.get_xlim()
    ranked = sorted(ends, key=lambda one: (ends[one], one))
    places = apart([math.log(ends[one]) for one in ranked], (high - low) * LABEL_INCHES / inches)
    near, far = (last + (last - first) * share for share in (0.01, 0.07))
    for system, place in zip(ranked, places, strict=True):
        colour = _colour(system)
        axes.plot([near, far], [ends[system], math.exp(place)], color=colour, linewidth=0.6, clip_on=False)
        axes.annotate(
            system,
            (far, math.exp(place)),
            (3, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight=_weight(system),
            fontsize=8,
            annotation_clip=False,
        )


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Returns places as close to those wanted, in rising order, as a gap between any two of them lets them be."""
    # Neighbours that are too close become one group, around the middle of what its members want.
    groups: list[list[float]] = []
    for one in wanted:
        groups.append([one])
        while len(groups) > 1 and _places(groups[-1], gap)[0] - _places(groups[-2], gap)[-1] < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [place for group in groups for place in _places(group, gap)]


def _places(group: Sequence[float], gap: float) -> list[float]:
    first = sum(group) / len(group) - gap * (len(group) - 1) / 2
    return [first + gap * place for place in range(len(group))]


def _colour(system: str) -> str:
    return OURS if is_ours(system) else OTHERS


def _weight(system: str) -> str:
    return "bold" if system == TOKENWIRE else "normal"
