"""The goals: what tokenwire may cost beside others, in the same round of the same run."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from bench.results import Results
from bench.spread import Spread, number, ratios, spread
from bench.table import table

TOKENWIRE = "tokenwire"
FILE_JOURNAL = "tokenwire, file journal"
REDIS_JOURNAL = "tokenwire, Redis journal"
TELEMETRY_OFF = "tokenwire, telemetry off"
BARE = "bare grpc.aio"
IDIOMATIC = "idiomatic grpc.aio + httpx"
SGLANG_ROUTER = "sglang-router"
LITELLM = "litellm"

PACED = "paced/100"
FIREHOSE = "firehose/100"
CPU = "cpu_us_per_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound that a figure, or its ratio to another system's, must keep.

    Attributes:
        text: what is measured, in words.
        scenario: under which load.
        figure: the figure's name.
        bound: for now.
        later: where we go; None: nowhere further.
        system: whose figure.
        to: the system that it is compared with; empty: with nothing.
        unit: of the bound; empty: it is a ratio.
        factor: makes the bound's unit of the figure's.
    """

    text: str
    scenario: str
    figure: str
    bound: float
    later: float | None = None
    system: str = TOKENWIRE
    to: str = ""
    unit: str = ""
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a goal stands.

    Attributes:
        goal: the goal.
        measured: median and range over the rounds; None: it could not be measured.
        missing: why not.
    """

    goal: Goal
    measured: Spread | None
    missing: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the bound for now; None: not known."""
        return None if self.measured is None else self.measured.median <= self.goal.bound

    @property
    def met_later(self) -> bool | None:
        """Whether it keeps the further bound; None: not known, or there is none."""
        if self.measured is None or self.goal.later is None:
            return None
        return self.measured.median <= self.goal.later


_CPU = partial(Goal, scenario=PACED, figure=CPU)

GOALS = (
    _CPU(text="CPU per token / bare grpc.aio", to=BARE, bound=1.3),
    _CPU(text="CPU per token / idiomatic grpc.aio + httpx", to=IDIOMATIC, bound=0.5, later=0.2),
    _CPU(text="CPU per token / sglang-router (Rust)", to=SGLANG_ROUTER, bound=2.8, later=0.75),
    _CPU(text="CPU per token / LiteLLM", to=LITELLM, bound=0.1, later=0.03),
    _CPU(
        text="firehose CPU per token / sglang-router",
        scenario=FIREHOSE,
        to=SGLANG_ROUTER,
        bound=0.6,
        later=0.5,
    ),
    _CPU(text="CPU per token, everything on / telemetry off", to=TELEMETRY_OFF, bound=1.1, later=1.05),
    Goal(
        text="added p99 at 256 streams / sglang-router's",
        scenario="latency/256",
        figure="added_p99_us",
        to=SGLANG_ROUTER,
        bound=1.5,
        later=1.0,
    ),
    Goal(
        text="RSS per stream at 1000",
        scenario="memory/1000",
        figure="rss_bytes_per_stream",
        bound=40,
        later=25,
        unit="KiB",
        factor=1 / 1024,
    ),
    _CPU(text="CPU per token, file journal / memory journal", system=FILE_JOURNAL, to=TOKENWIRE, bound=1.05),
    Goal(
        text="Redis journal, added latency p50",
        scenario=PACED,
        figure="added_p50_us",
        system=REDIS_JOURNAL,
        bound=1.0,
        unit="ms",
        factor=1e-3,
    ),
)


def standings(results: Results) -> list[Standing]:
    """Returns how all goals stand."""
    return [_standing(goal, results) for goal in GOALS]


def goals_table(results: Results) -> str:
    """Returns the goals as a Markdown table."""
    heads = ("figure", "goal", "where we go", "measured, median [range]", "rounds", "goal is", "where we go is")
    return table(heads, (_row(one) for one in standings(results)), left=len(heads))


def missing(results: Results, system: str, scenario: str, figure: str) -> str:
    """Returns why there is no figure of a system; empty if there is one."""
    if results.values(system, scenario, figure):
        return ""
    if system in results.absent:
        return f"{system} is absent"
    runs = [one for one in results.samples if one.system == system and one.scenario == scenario]
    if not runs:
        return f"{system} was not run in {scenario}"
    if all(one.void for one in runs):
        return f"all runs of {system} in {scenario} are void"
    return f"{system} in {scenario} has no {figure}"


def _standing(goal: Goal, results: Results) -> Standing:
    values = results.values(goal.system, goal.scenario, goal.figure)
    why = missing(results, goal.system, goal.scenario, goal.figure)
    if goal.to:
        why = why or missing(results, goal.to, goal.scenario, goal.figure)
        values = ratios(values, results.values(goal.to, goal.scenario, goal.figure))
        why = why or ("" if values else f"no round has both {goal.system} and {goal.to}")
    measured = spread(_scaled(values, goal.factor).values())
    return Standing(goal=goal, measured=measured, missing=why)


def _scaled(values: Mapping[int, float], factor: float) -> dict[int, float]:
    return {one: value * factor for one, value in values.items()}


def _row(standing: Standing) -> tuple[str, ...]:
    goal, measured = standing.goal, standing.measured
    unit = f" {goal.unit}" if goal.unit else ""
    bounds = [f"<= {bound:g}{unit}" if bound is not None else "-" for bound in (goal.bound, goal.later)]
    if measured is None:
        return goal.text, *bounds, f"not measured: {standing.missing}", "0", "not measured", "-"
    verdicts = [_verdict(met) for met in (standing.met, standing.met_later)]
    return goal.text, *bounds, _shown(measured, goal) + unit, str(measured.count), *verdicts


def _verdict(met: bool | None) -> str:
    return "-" if met is None else "met" if met else "**missed**"


def _shown(measured: Spread, goal: Goal) -> str:
    """Returns the figure with as many digits as it takes that nobody sees a bound kept that is missed, or missed that
    is kept."""
    bounds = [bound for bound in (goal.bound, goal.later) if bound is not None]
    decimals = max(measured.decimals, 0)
    while decimals < 6 and any(
        (float(number(measured.median, decimals).replace(",", "")) <= bound) is not (measured.median <= bound)
        for bound in bounds
    ):
        decimals += 1
    return measured.text(decimals)
