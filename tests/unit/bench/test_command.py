"""The benchmark's command line."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import benchmark, checks, command
from bench.command import main
from bench.goals import TOKENWIRE
from bench.measures import syscalls
from bench.plan import Visit
from bench.programs import Programs, ProgramsError
from bench.results import Results, Sample
from bench.system import System
from bench.visiting import Outcome
from unit.bench.measured import Fake

PROGRAMS = Programs(engine=Path("engine"), client=Path("client"))


class Alive:
    """A child that does not end."""

    def ended(self) -> str:
        return ""


class Nowhere:
    """A site where nothing runs."""

    def __init__(self) -> None:
        self.child = Alive()
        self.engine = self.collector = self


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_site(*_: Any) -> Iterator[Nowhere]:
        yield Nowhere()

    monkeypatch.setattr(command, "ensure", lambda: PROGRAMS)
    monkeypatch.setattr(command, "all_systems", lambda: [Fake("one"), Fake("two, three"), Fake("four", "too dear")])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(benchmark, "open_site", open_site)
    counts(monkeypatch, agree=True)
    visits(monkeypatch)


def visits(monkeypatch: pytest.MonkeyPatch, void: str = "", said: str = "", interrupted_at: int = 0) -> None:
    """Lets each visit bring the same, and the one of that number an interruption."""
    paid: list[Visit] = []

    def pay(_site: Any, _system: Any, visit: Visit, _mode: Any) -> Outcome:
        paid.append(visit)
        if len(paid) == interrupted_at:
            raise KeyboardInterrupt
        samples = [
            Sample(system=visit.system, scenario=one.name, round=visit.round, values={"cpu_us_per_token": 9}, void=void)
            for one in visit.scenarios
        ]
        return Outcome(samples=samples, said=said)

    monkeypatch.setattr(benchmark, "pay", pay)


def counts(monkeypatch: pytest.MonkeyPatch, *, agree: bool) -> None:
    """Lets other load programs count the same or not."""
    monkeypatch.setattr(checks, "check", lambda _, systems: [{"system": one.name, "agree": agree} for one in systems])


def run(folder: Path, *arguments: str) -> int:
    return main(["--scenarios", "paced/100", "--rounds", "2", "--seed", "1", "--out", str(folder), *arguments])


def written(folder: Path) -> Results:
    return msgspec.json.decode((folder / "results.json").read_bytes(), type=Results)


def test_a_benchmark_that_is_done_ends_with_0_and_writes_results_and_a_report(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    results = written(tmp_path)
    measured = sorted((one.round, one.system) for one in results.samples)
    assert measured == [(1, "one"), (1, "two, three"), (2, "one"), (2, "two, three")]
    assert (results.mode, results.rounds) == ("quick", 2)
    assert results.versions == {"one": "1.0", "two, three": "1.0"}
    assert results.absent == {"four": "too dear"}
    assert results.machine["cores"] != "0"
    assert list(tmp_path.glob("*.md"))


def test_one_void_sample_makes_it_end_with_1_and_what_the_gateway_said_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits(monkeypatch, void="it died", said="I am dying")
    assert run(tmp_path, "--systems", "two-three") == 1
    assert {one.void for one in written(tmp_path).samples} == {"it died"}
    assert (tmp_path / "logs" / "1-two-three-paced-100.log").read_text() == "I am dying\n"


def test_other_programs_count_too_and_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "all_systems", lambda: [Fake(TOKENWIRE)])
    assert main(["--rounds", "1", "--out", str(tmp_path)]) == 0
    assert written(tmp_path).checks == [{"system": TOKENWIRE, "agree": True}]
    counts(monkeypatch, agree=False)
    assert main(["--rounds", "1", "--out", str(tmp_path)]) == 1


def test_a_machine_that_others_use_is_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "busy_cores", lambda: 1.23)
    assert run(tmp_path) == 0
    assert "others use 1.2 of " in capsys.readouterr().out
    assert written(tmp_path).machine["cores in use before"] == "1.23"


def test_what_was_measured_before_an_interruption_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visits(monkeypatch, interrupted_at=4)
    assert run(tmp_path) == 130
    assert len(written(tmp_path).samples) == 3
    assert list(tmp_path.glob("*.md"))


def test_what_has_been_measured_is_on_the_disk_before_the_next_visit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def pay(_site: Any, system: System, visit: Visit, _mode: Any) -> Outcome:
        seen.append(len(written(tmp_path).samples) if seen else 0)
        return Outcome(samples=[Sample(system=system.name, scenario="paced/100", round=visit.round)])

    monkeypatch.setattr(benchmark, "pay", pay)
    assert run(tmp_path) == 0
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--systems", "one,none"], "no system is called none"),
        (["--scenarios", "paced/7"], "no scenario is called paced/7"),
    ],
)
def test_a_name_that_nobody_has_ends_with_2(
    arguments: Sequence[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--rounds", "many"], ["--fast"]])
def test_an_option_that_makes_no_sense_ends_with_2(arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_without_load_programs_it_ends_with_2_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ensure() -> Programs:
        raise ProgramsError("there is no `go` on the path")

    monkeypatch.setattr(command, "ensure", ensure)
    assert main([]) == 2
    assert "there is no `go` on the path" in capsys.readouterr().out


def test_what_there_is_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    told = capsys.readouterr().out
    assert "two-three" in told
    assert "latency/256" in told


def test_machines_are_told_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--json") == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events.count("sample") == 4
    assert "plan" in events


def test_prefix_reuse_that_was_measured_before_is_taken_in(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix.json"
    prefix.write_text("{}")
    assert run(tmp_path / "results", "--prefix", str(prefix)) == 0
    assert written(tmp_path / "results").prefix == {}


def test_system_calls_are_left_out_where_nobody_can_count_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "absent", lambda: "strace is not installed")
    assert main(["--out", str(tmp_path), "--rounds", "1"]) == 0
    results = written(tmp_path)
    assert results.absent["syscalls/100"] == "strace is not installed"
    assert not [one for one in results.samples if one.scenario == "syscalls/100"]
