"""Processes that a benchmark starts: they end, whatever happens."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from bench.child import Child
from harness.waiting import until

REST = "import time; time.sleep(600)"
STUBBORN = (
    "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path('up').touch()\n"
    "time.sleep(600)"
)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait(path: Path) -> None:
    asyncio.run(until(path.exists, f"{path.name} is there", 30))


def test_a_child_ends_with_its_block(tmp_path: Path) -> None:
    with Child("rest", [sys.executable, "-c", REST], folder=tmp_path) as child:
        assert not child.ended()
    assert is_gone(child.pid)
    assert child.ended() == f"rest was killed by signal {int(signal.SIGTERM)}"


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], folder=tmp_path)
    wait(tmp_path / "up")
    child.stop(grace_seconds=0.05)
    assert child.ended() == f"stubborn was killed by signal {int(signal.SIGKILL)}"


def test_a_child_of_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); {REST}"
    with Child("parent", [sys.executable, "-c", script], folder=tmp_path) as child:
        wait(tmp_path / "up")
        pids = child.tree.pids()
        assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)


def test_after_an_interruption_nothing_is_waited_for(tmp_path: Path) -> None:
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], folder=tmp_path)
    with suppress(KeyboardInterrupt), child:
        wait(tmp_path / "up")
        raise KeyboardInterrupt
    assert child.ended() == f"stubborn was killed by signal {int(signal.SIGKILL)}"


def test_a_child_ends_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    benchmark = (
        "import sys, time; from pathlib import Path; from bench.child import Child\n"
        f"child = Child('rest', [sys.executable, '-c', {REST!r}], folder=Path.cwd())\n"
        "Path('pid.new').write_text(str(child.pid)); Path('pid.new').rename('pid')\n"
        "time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", benchmark], cwd=tmp_path, env=environment) as process:
        try:
            wait(tmp_path / "pid")
            pid = int((tmp_path / "pid").read_text())
            # The leash is on once the child has become what it is to be.
            told = Path(f"/proc/{pid}/cmdline")
            asyncio.run(until(lambda: "leash.py" not in told.read_text(), "the leash is on", 30))
            assert not is_gone(pid)
        finally:
            process.kill()
    asyncio.run(until(lambda: is_gone(pid), "the child has ended", 30))


def test_variables_that_steer_gateways_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SDK_DISABLED", "TOKENWIRE_JOURNAL", "http_proxy"):
        monkeypatch.setenv(name, "anything")
    script = "import os; print(*sorted(os.environ))"
    child = Child("names", [sys.executable, "-c", script], folder=tmp_path, environment={"OTEL_SERVICE_NAME": "mine"})
    assert child.wait(30)
    names = child.output.read_text().split()
    assert not {"OTEL_SDK_DISABLED", "TOKENWIRE_JOURNAL", "http_proxy"} & set(names)
    assert {"OTEL_SERVICE_NAME", "PATH"} <= set(names)


def test_how_a_child_has_ended_is_told(tmp_path: Path) -> None:
    child = Child("failing", [sys.executable, "-c", "import sys; sys.exit('no such luck')"], folder=tmp_path)
    assert child.wait(30)
    assert child.ended() == "failing ended with code 1"
    assert child.said() == "no such luck\n"
