"""What a benchmark runs on."""

import os
import time
from pathlib import Path

import pytest

from bench import machine as looking
from bench.machine import busy_cores, machine

BEFORE = "cpu  100 10 200 5000 700 3 4 5 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"
TICKS = os.sysconf("SC_CLK_TCK")


def test_the_machine_is_told() -> None:
    told = machine(busy=0.25)
    assert int(told["cores"]) >= 1
    assert told["memory"].endswith("GiB")
    assert told["system"].startswith("Linux ")
    assert told["cores in use before"] == "0.25"


def test_cores_in_use_are_those_that_neither_idle_nor_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(BEFORE)
    monkeypatch.setattr(looking, "_STAT", stat)
    clock = iter((10.0, 12.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))

    def sleep(_: float) -> None:
        # One second in user mode, one and a half in the kernel, half a second stolen; the rest is rest.
        used = f"cpu  {100 + TICKS} 10 {200 + TICKS * 3 // 2} 9000 900 3 4 {5 + TICKS // 2} 0 0\n"
        stat.write_text(used)

    monkeypatch.setattr(time, "sleep", sleep)
    assert busy_cores() == pytest.approx(3 / 2)
