"""The report: medians, ratios and rounding, and what it says of results that are made up."""

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from bench import report
from bench.columns import Column, carrying, figures, scenarios
from bench.goals import BARE, FIREHOSE, LITELLM, PACED, SGLANG_ROUTER, TOKENWIRE
from bench.report import markdown
from bench.results import Results
from bench.spread import Spread, number, ratios, spread
from bench.table import table
from unit.bench.fabricated import COSTS, results, runs, sample, whole

SECTIONS = (
    "How it was measured",
    "What was not measured",
    "Goals",
    "CPU per token, paced",
    "CPU per token, firehose",
    "Cost of a call",
    "Added latency",
    "Time to the first token",
    "Memory",
    "Messages and system calls per token",
    "Saturation",
    "Two processes",
    "Dialects",
    "Cost of the load programs",
    "Checks by other programs",
    "Prefix reuse",
)


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """Returns the cells of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    heads = {place - 1 for place, row in enumerate(cells) if row[0] == "---"}
    return [row for place, row in enumerate(cells) if place not in heads and row[0] != "---"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([26.7, 29.6, 35.6], "30 [27-36]"),
        ([7.4, 7.6, 8.6], "7.6 [7.4-8.6]"),
        ([2.01, 2.08, 2.13], "2.1 [2.0-2.1]"),
        ([1.018, 1.032, 1.041], "1.03 [1.02-1.04]"),
        ([0.0612, 0.0661, 0.0703], "0.066 [0.061-0.070]"),
        ([100, 3000, 20000], "3,000 [100-20,000]"),
        ([468123, 470000, 491234], "470,000 [470,000-490,000]"),
        ([1.0, 1.0, 1.0], "1.00"),
        ([2.345], "2.3"),
        ([0.0, 0.0], "0.00"),
        ([-3.0, 2.0, 4.0], "2.0 [-3.0 to 4.0]"),
    ],
)
def test_numbers_are_no_finer_than_their_range(values: list[float], shown: str) -> None:
    found = spread(values)
    assert found is not None
    assert found.text() == shown


@hypothesis.given(st.lists(st.floats(min_value=1e-6, max_value=1e9), min_size=1, max_size=9))
def test_rounding_moves_no_number_by_more_than_the_range_or_a_twentieth(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    shown = float(number(found.median, found.decimals).replace(",", ""))
    assert abs(shown - found.median) <= max(found.high - found.low, found.median / 20) / 2 + 1e-12
    assert found.low <= found.median <= found.high


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None


def test_other_unit_changes_all_of_a_spread() -> None:
    assert Spread(median=2, low=1, high=3, count=4).times(10) == Spread(median=20, low=10, high=30, count=4)


def test_ratios_are_of_the_rounds_that_both_have() -> None:
    assert ratios({1: 4.0, 2: 9.0, 3: 5.0}, {1: 2.0, 2: 3.0, 4: 1.0}) == {1: 2.0, 2: 3.0}


def test_ratio_to_nothing_is_left_out() -> None:
    assert ratios({1: 4.0, 2: 3.0}, {1: 0.0, 2: 2.0}) == {2: 1.5}


def test_cells_of_a_table_break_no_table() -> None:
    assert table(("a", "b"), [("one|two", "three\nfour")]).splitlines()[2] == "| one\\|two | three four |"


def test_table_is_sorted_by_its_first_column_with_those_that_have_no_figure_last() -> None:
    found = results(
        [
            *runs("slow", PACED, cpu_us_per_token=[30.0]),
            sample("broken", PACED, 1, void="a token is missing"),
            *runs("quick", PACED, cpu_us_per_token=[3.0]),
            *runs("elsewhere", FIREHOSE, cpu_us_per_token=[1.0]),
        ]
    )
    text = figures(found, [Column(head="CPU", scenario=PACED, figure="cpu_us_per_token")])
    assert rows(text) == [["quick", "3.0", "1"], ["slow", "30", "1"], ["broken", "void", "0"]]
    upside_down = figures(found, [Column(head="CPU", scenario=PACED, figure="cpu_us_per_token")], largest_first=True)
    assert [row[0] for row in rows(upside_down)] == ["slow", "quick", "broken"]


def test_column_may_compare_with_a_system_or_with_another_scenario() -> None:
    found = results(
        [
            *runs("a", "saturation", tokens_per_second=[10.0, 20.0]),
            *runs("a", "two-processes", tokens_per_second=[15.0, 40.0]),
            *runs("b", "saturation", tokens_per_second=[5.0, 40.0]),
        ]
    )
    to_b = Column(head="", scenario="saturation", figure="tokens_per_second", to="b")
    to_one = Column(head="", scenario="two-processes", figure="tokens_per_second", to_scenario="saturation")
    measured = [column.measure(found, "a") for column in (to_b, to_one)]
    assert [(one.low, one.high) for one in measured if one] == [(0.5, 2.0), (1.5, 2.0)]
    assert to_b.cell(found, "b") == "1"
    assert to_one.cell(found, "b") == "-"


def test_scenarios_of_a_kind_are_sorted_by_their_streams() -> None:
    found = results([sample("a", f"latency/{count}", 1, added_p50_us=1.0) for count in (256, 1000, 1, 32)])
    assert scenarios(found, "latency") == ["latency/1", "latency/32", "latency/256", "latency/1000"]
    assert scenarios(found, "memory") == []
    assert carrying(found, "call_us") == []


def test_report_has_every_section_with_a_table_in_each() -> None:
    text = markdown(whole(checks=[{"program": "ghz", "tokens": 100}]))
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles == list(SECTIONS)
    for title in SECTIONS[2:-1]:
        assert rows(section(text, title)), title
    assert section(text, "Prefix reuse").strip().endswith("Not measured.")


def test_report_of_nothing_has_every_section_and_says_that_nothing_was_measured() -> None:
    text = markdown(results([]))
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    for title in SECTIONS[3:]:
        assert section(text, title).strip().endswith("Not measured."), title


def test_report_tells_machine_versions_date_and_mode() -> None:
    text = markdown(whole(versions={TOKENWIRE: "1.2.3"}, mode="full"))
    assert "measured 2001-01-01T00:00:00+00:00 (full run, up to 3 rounds)" in text
    assert "| processor | made up |" in text
    assert "| **tokenwire** | 1.2.3 |" in text


def test_absent_systems_are_named_with_the_reason() -> None:
    text = section(markdown(whole(absent={"envoy": "the registry has none"})), "What was not measured")
    assert "| envoy | the registry has none |" in text
    assert "No system is absent." in section(markdown(whole()), "What was not measured")


def test_void_runs_are_listed_with_their_rounds_and_left_out_of_every_figure() -> None:
    samples = list(whole().samples)
    spoilt = [
        msgspec.structs.replace(one, void="2 of 100 calls failed", values={"cpu_us_per_token": 1e6})
        if one.system == LITELLM and one.scenario == PACED and one.round in (1, 3)
        else one
        for one in samples
    ]
    text = markdown(results(spoilt))
    told = section(text, "What was not measured")
    assert "| litellm | paced/100 | 2 of 100 calls failed | 1, 3 |" in told
    assert f"Of {len(samples)} runs, 2 do not count." in told
    row = next(row for row in rows(section(text, "CPU per token, paced")) if row[0] == "litellm")
    assert row == ["litellm", "480", "40", "25", "1"], "its second round alone counts"
    assert "All 3 runs count." in markdown(results(runs("a", PACED, cpu_us_per_token=[1.0, 1.0, 1.0])))


def test_paced_table_has_every_system_and_the_ratios_of_each() -> None:
    found = rows(section(markdown(whole()), "CPU per token, paced"))
    assert [row[0].strip("*") for row in found] == sorted(COSTS, key=lambda one: COSTS[one])
    ours = next(row for row in found if row[0] == f"**{TOKENWIRE}**")
    assert ours == ["**tokenwire**", "24 [22-26]", "2.00", "1.25", "3"]
    router = next(row for row in found if row[0] == SGLANG_ROUTER)
    assert router[2] == "1"


def test_what_runs_beside_a_gateway_is_told_apart() -> None:
    found = results(
        [
            *runs(BARE, PACED, cpu_us_per_token=[10.0]),
            *runs(TOKENWIRE, PACED, cpu_us_per_token=[20.0], companion_us_per_token=[7.0]),
        ]
    )
    text = section(markdown(found), "CPU per token, paced")
    assert [row[4] for row in rows(text)] == ["-", "7.0"]
    assert "beside it" not in section(markdown(whole()), "CPU per token, paced").lower()


def test_loads_are_told_with_their_rates() -> None:
    text = markdown(whole())
    assert "100 streams, each at 50 tokens a second" in section(text, "CPU per token, paced")
    assert "100 streams, as fast as the gateway takes it" in section(text, "CPU per token, firehose")
    assert "### 1 stream at 50 tokens a second" in section(text, "Added latency")
    assert "### 1000 streams, each at 10 tokens a second" in section(text, "Added latency")


def test_more_is_better_where_it_is() -> None:
    for title in ("Saturation", "Two processes"):
        told = rows(section(markdown(whole()), title))
        assert told[0][0] == "nginx", title
        assert told[-1][0] == "litellm", title
    assert rows(section(markdown(whole()), "Two processes"))[0][2] == "2.00"


def test_dialects_are_those_of_tokenwire_alone() -> None:
    told = rows(section(markdown(whole()), "Dialects"))
    assert [row[0] for row in told] == ["**tokenwire**", "**tokenwire, SGLang**", "**tokenwire, chat**"]


def test_checks_keep_every_figure_that_any_of_them_has() -> None:
    checks: list[dict[str, object]] = [
        {"tool": "ghz", "counts": "tokens", "agree": True},
        {"tool": "h2load", "agree": False, "data_bytes": 1.5},
    ]
    text = section(markdown(whole(checks=checks)), "Checks by other programs")
    assert rows(text) == [["ghz", "tokens", "yes", "-"], ["h2load", "-", "**no**", "1.5"]]
    assert "| tool | counts | agree | data bytes |" in text


def test_command_writes_the_report_beside_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode(results([])))
    report.main([str(path)])
    assert (tmp_path / "README.md").read_text() == markdown(msgspec.json.decode(path.read_bytes(), type=Results))
    assert str(tmp_path / "README.md") in capsys.readouterr().out
