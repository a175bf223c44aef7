"""The load programs are built when they are not there or not up to date."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench import programs
from bench.programs import ProgramsError, ensure

GO_MOD = "module example\n\ngo 1.22\n"
PROGRAM = 'package main\n\nimport "os"\n\nfunc main() { os.Stdout.WriteString("%s") }\n'


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two programs that need nothing."""
    folder = tmp_path / "load"
    for name in ("engine", "client"):
        (folder / name).mkdir(parents=True)
        (folder / name / "main.go").write_text(PROGRAM % name)
    (folder / "go.mod").write_text(GO_MOD)
    (folder / "go.sum").write_text("")
    monkeypatch.setattr(programs, "SOURCES", folder)
    return folder


def told_by(program: Path) -> str:
    return subprocess.check_output([program], text=True)


needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="there is no go")


@needs_go
def test_programs_are_built_once_and_again_when_a_source_is_newer(sources: Path, tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    built = ensure(bin_folder)
    assert told_by(built.client) == "client"
    first = (built.engine.stat().st_mtime_ns, built.client.stat().st_mtime_ns)
    assert ensure(bin_folder) == built
    assert (built.engine.stat().st_mtime_ns, built.client.stat().st_mtime_ns) == first
    (sources / "client" / "main.go").write_text(PROGRAM % "newer")
    ensure(bin_folder)
    assert told_by(built.client) == "newer"
    built.engine.unlink()
    ensure(bin_folder)
    assert told_by(built.engine) == "engine"
    assert sorted(one.name for one in bin_folder.iterdir()) == [".lock", "client", "engine"]


@needs_go
def test_a_changed_test_is_no_changed_program(sources: Path, tmp_path: Path) -> None:
    built = ensure(tmp_path)
    first = built.client.stat().st_mtime_ns
    (sources / "client" / "main_test.go").write_text("package main\n")
    assert ensure(tmp_path).client.stat().st_mtime_ns == first


@needs_go
def test_what_go_says_of_a_broken_source_is_told(sources: Path, tmp_path: Path) -> None:
    (sources / "engine" / "main.go").write_text("package main\n\nfunc main() { what() }\n")
    with pytest.raises(ProgramsError, match=r"(?s)load program engine.*undefined: what"):
        ensure(tmp_path)
    assert not (tmp_path / "engine").exists()


def test_without_go_it_is_said_what_is_missing(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramsError, match="there is no `go` on the path"):
        ensure(tmp_path)
