"""The plots, of results that are made up."""

from itertools import pairwise
from pathlib import Path

import pytest

from bench.goals import BARE, LITELLM, PACED, TOKENWIRE
from bench.results import Results
from unit.bench.fabricated import results, runs, sample, whole

pytest.importorskip("matplotlib", reason="matplotlib is not installed: requirements/bench.txt")

import hypothesis
import hypothesis.strategies as st
from matplotlib.image import imread

from bench import plots
from bench.report import markdown, write

NAMES = ["cost-per-token.png", "added-latency.png", "memory.png"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    assert [path.name for path in plots.draw(whole(), folder)] == NAMES
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_plot_is_an_image_on_an_opaque_white_ground_with_our_own_in_blue(drawn: Path, name: str) -> None:
    assert (drawn / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    image = imread(drawn / name)
    height, width, colours = image.shape
    assert height > 400
    assert width > 1000
    assert colours == 3 or image[:, :, 3].min() == 1.0
    assert image[0, 0, :3].tolist() == image[-1, -1, :3].tolist() == [1.0, 1.0, 1.0]
    red, green, blue = (image[:, :, channel] for channel in range(3))
    assert ((blue - red > 0.5) & (green > 0.3)).sum() > 300, "tokenwire is there"
    exact = [
        abs(channel - int(plots.OTHERS[place : place + 2], 16) / 255) < 0.01
        for channel, place in ((red, 1), (green, 3), (blue, 5))
    ]
    assert (exact[0] & exact[1] & exact[2]).sum() > 300, "the others are there"
    assert plots.OTHERS[1:3] == plots.OTHERS[3:5] == plots.OTHERS[5:7], "and grey"


def test_same_results_give_the_same_files(tmp_path: Path) -> None:
    found = results(runs(TOKENWIRE, PACED, cpu_us_per_token=[20.0, 25.0]))
    once, again = ([path.read_bytes() for path in plots.draw(found, tmp_path)] for _ in range(2))
    assert once == again


def test_nothing_measured_gives_no_plot(tmp_path: Path) -> None:
    assert plots.draw(results([]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_void_runs_are_not_drawn(tmp_path: Path) -> None:
    spoilt = [sample(BARE, PACED, 1, void="busy", cpu_us_per_token=1.0, added_p50_us=1.0)]
    assert plots.draw(results(spoilt), tmp_path) == []


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (results(runs(TOKENWIRE, PACED, cpu_us_per_token=[20.0])), "cost-per-token.png"),
        (results(runs(TOKENWIRE, "latency/1", added_p99_us=[200.0])), "added-latency.png"),
        (
            results(runs(TOKENWIRE, "memory/1000", rss_idle_bytes=[4e7], rss_bytes_per_stream=[3e4])),
            "memory.png",
        ),
    ],
)
def test_one_figure_of_one_system_is_enough_for_a_plot(tmp_path: Path, found: Results, name: str) -> None:
    assert [path.name for path in plots.draw(found, tmp_path)] == [name]


def test_system_that_did_not_get_as_far_as_the_others_is_drawn_as_far_as_it_got(tmp_path: Path) -> None:
    far = [one for count in (1, 32, 256) for one in runs(TOKENWIRE, f"latency/{count}", added_p50_us=[100.0, 130.0])]
    near = runs(LITELLM, "latency/1", added_p50_us=[9000.0, 7000.0])
    assert [path.name for path in plots.draw(results(far + near), tmp_path)] == ["added-latency.png"]


def test_report_shows_the_plots_that_there_are(tmp_path: Path) -> None:
    found = results(runs(TOKENWIRE, PACED, cpu_us_per_token=[20.0]))
    assert [path.name for path in write(found, tmp_path)] == ["README.md", "cost-per-token.png"]
    text = (tmp_path / "README.md").read_text()
    assert text == markdown(found, ["cost-per-token.png"])
    assert text.count("![") == 1
    assert "![cost per token](cost-per-token.png)" in text


@hypothesis.given(
    st.lists(st.floats(min_value=-100, max_value=100), max_size=12), st.floats(min_value=0.1, max_value=9)
)
def test_labels_stay_in_order_and_apart_from_each_other(wanted: list[float], gap: float) -> None:
    found = plots.apart(sorted(wanted), gap)
    assert len(found) == len(wanted)
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(found))


def test_labels_that_are_far_apart_stay_where_they_are_and_close_ones_share_the_way() -> None:
    assert plots.apart([0.0, 10.0, 20.0], 1.0) == [0.0, 10.0, 20.0]
    assert plots.apart([0.0, 10.0, 10.0, 20.0], 1.0) == [0.0, 9.5, 10.5, 20.0]
    assert plots.apart([0.0, 0.4, 1.0], 1.0) == pytest.approx([-0.533, 0.467, 1.467], abs=0.001)
