"""Prefix reuse as Markdown."""

import statistics
from collections.abc import Sequence

from bench.prefix.reading import Case, Reuse
from bench.spread import spread
from bench.table import table

NAMES = {
    Case.COLD: "cold",
    Case.REPEATED: "the same again",
    Case.SHARED: "the first 80 % the same",
}
# From this turn on a conversation counts as long.
LONG = 5
# What is claimed of the time to the first token, by that of a cold prompt of the same length.
CLAIM_SIMILAR = (0.3, 0.5)
CLAIM_LONG = (0.1, 0.2)


def prefix_tables(engines: Sequence[Reuse]) -> str:
    """Returns the claims and, for each engine, what was measured."""
    return "\n\n".join([_claims(engines), *(f"### {one.engine}, {one.model}\n\n{_engine(one)}" for one in engines)])


def similar(reuse: Reuse) -> list[float]:
    """Returns the ratios of all similar prompts, of each length, to cold ones."""
    return [ratio for size in reuse.sizes(Case.SHARED) for ratio in reuse.to_cold(Case.SHARED, size).values()]


def long_turns(reuse: Reuse) -> list[float]:
    """Returns the ratios of all later turns to cold ones."""
    turns = [size for size in reuse.sizes(Case.TURN) if size >= LONG]
    return [ratio for size in turns for ratio in reuse.to_cold(Case.TURN, size).values()]


def verdict(ratios: Sequence[float], claim: tuple[float, float]) -> str:
    """Tells how measured ratios stand to a claimed range: their median decides."""
    if not ratios:
        return "not measured"
    low, high = claim
    median = statistics.median(ratios)
    if median > high:
        return "not kept"
    return "kept" if median >= low else "kept, and better"


def _claims(engines: Sequence[Reuse]) -> str:
    rows = []
    for what, claim, ratios in (
        ("a prompt whose first 80 % are known", CLAIM_SIMILAR, similar),
        (f"turn {LONG} of a conversation and later", CLAIM_LONG, long_turns),
    ):
        for engine in engines:
            found = ratios(engine)
            measured = spread(found)
            shown = measured.text() if measured else "-"
            rows.append((what, f"{claim[0]}-{claim[1]}", engine.engine, shown, verdict(found, claim)))
    return table(("time to first token / cold", "claim", "engine", "measured", "claim is"), rows, left=5)


def _engine(reuse: Reuse) -> str:
    rows = [_row(reuse, case, size, NAMES[case]) for size in reuse.sizes(Case.COLD) for case in NAMES]
    rows += [_row(reuse, Case.TURN, size, f"turn {size}") for size in reuse.sizes(Case.TURN)]
    text = table(("prompt", "tokens", "of these cached", "time to first token, ms", "/ cold of the same length"), rows)
    if reuse.void:
        times = "once" if len(reuse.void) == 1 else f"{len(reuse.void)} times"
        text += f"\n\nAsked again with other texts {times}: {', '.join(sorted(set(reuse.void)))}."
    if reuse.given_up:
        text += f"\n\nGiven up before the end: {reuse.given_up}."
    return text


def _row(reuse: Reuse, case: Case, size: int, name: str) -> tuple[str, ...]:
    readings = list(reuse.of(case, size))
    if not readings:
        return name, "-", "-", "-", "-"
    tokens = statistics.median(one.prompt_tokens for one in readings)
    cached = statistics.median(one.cached_tokens for one in readings)
    time = spread(one.ttft_us / 1000 for one in readings)
    ratio = None if case is Case.COLD else spread(reuse.to_cold(case, size).values())
    shown = [one.text() if one else "-" for one in (time, ratio)]
    return name, f"{tokens:.0f}", f"{cached:.0f}", shown[0], "1" if case is Case.COLD else shown[1]
