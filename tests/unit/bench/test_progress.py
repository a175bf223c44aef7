"""What is told while a benchmark runs."""

import io
import json
from random import Random

from rich.console import Console

from bench.plan import make_plan
from bench.progress import Bar, JsonLines, Lines, Watcher
from bench.results import Sample
from bench.scenarios import Mode

GOOD = Sample(system="tokenwire", scenario="paced/100", round=1, values={"cpu_us_per_token": 20.04, "call_us": 210.0})
VOID = Sample(system="nginx", scenario="call", round=2, void="port 9 is busy")


def tell(watcher: Watcher) -> None:
    plan = make_plan(["tokenwire"], mode=Mode.QUICK, rng=Random(1), scenarios=["paced/100"], rounds=2)
    with watcher:
        watcher.planned(plan)
        for visit, sample in zip(plan.visits, (GOOD, VOID), strict=True):
            watcher.begins(visit)
            watcher.measured(sample)
            watcher.ends(visit)
        watcher.says("done")


def test_there_is_a_line_for_each_measurement() -> None:
    stream = io.StringIO()
    tell(Lines(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("2 measurements in 2 rounds, quick: about ")
    assert lines[1:] == [
        "1/2 round 1 paced/100 tokenwire: 20.04 us/token, 210 us/call",
        "2/2 round 2 call nginx: VOID: port 9 is busy",
        "done",
    ]


def test_a_bar_names_what_is_void() -> None:
    stream = io.StringIO()
    tell(Bar(Console(file=stream, force_terminal=True, width=120)))
    assert "round 2 call nginx: VOID: port 9 is busy" in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_machines_are_told_an_object_a_line() -> None:
    stream = io.StringIO()
    tell(JsonLines(stream))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["event"] for one in events] == ["plan", "start", "sample", "end", "start", "sample", "end", "note"]
    assert events[0]["measurements"] == 2
    assert events[0]["seconds"] > 0
    assert events[2]["sample"]["values"]["cpu_us_per_token"] == 20.04
    assert events[5]["sample"]["void"] == "port 9 is busy"
