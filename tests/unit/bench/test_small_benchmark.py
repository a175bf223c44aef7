"""A whole benchmark, as small as can be: real load programs, a real gateway, real figures."""

import asyncio
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import pytest

from bench.gateway import running
from bench.goals import BARE, IDIOMATIC
from bench.measures.paced import paced
from bench.programs import ProgramsError, ensure
from bench.results import Results
from bench.scenarios import Scenario
from bench.site import Site, open_site
from bench.systems.registry import all_systems
from bench.void import VoidError
from harness.waiting import until
from unit.bench.measured import scenario

TESTS = Path(__file__).parents[2]
RATE = 100
SMALL: Scenario = replace(scenario("paced/100"), name="paced/5", streams=5, rate=RATE)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if shutil.which("go") is None:
        pytest.skip("no Go to build the load programs with")
    try:
        programs = ensure()
    except ProgramsError as error:
        pytest.skip(f"the load programs cannot be built here: {error}")
    with open_site(programs, [RATE], Random()) as opened:
        yield opened
    assert not opened.folder.exists()


@pytest.mark.parametrize("name", [BARE, IDIOMATIC])
def test_five_streams_of_twenty_tokens_give_figures_and_leave_nothing(site: Site, name: str) -> None:
    system = next(one for one in all_systems() if one.name == name)
    with running(site, system, RATE) as gateway:
        values = paced(site, gateway, SMALL, seconds=20 / RATE)
        pids = gateway.pids()
    # A hundred tokens are too few for more: the calls' cost, which is taken off, may be larger.
    assert math.isfinite(values["cpu_us_per_token"])
    assert 0 < values["messages_per_token"] <= 1
    assert 0 < values["added_p50_us"] <= values["added_p99_us"] <= values["added_p999_us"]
    assert all(math.isfinite(values[f"{who}_us_per_token"]) for who in ("client", "engine"))
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert not gateway.folder.exists()


def test_a_gateway_that_dies_is_void(site: Site) -> None:
    system = next(one for one in all_systems() if one.name == BARE)
    with running(site, system, RATE) as gateway:
        gateway.copies[0].stop(grace_seconds=0)
        with pytest.raises(VoidError, match="gateway-0 was killed by signal 9"):
            paced(site, gateway, SMALL, seconds=0.1)


def test_after_ctrl_c_nothing_runs_and_what_was_measured_is_written(site: Site, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--systems", "bare-grpc-aio", "--scenarios", "paced/100", "--rounds", "1"]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "TMPDIR": str(tmp_path)}
    with (tmp_path / "told").open("wb") as told:
        process = subprocess.Popen(
            [*command, "--json", "--out", str(tmp_path / "out")], stdout=told, cwd=TESTS, env=environment
        )
    try:
        asyncio.run(until(lambda: len(running_below(tmp_path)) >= 3, "engine, collector and gateway run", 60))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    # Whoever was killed last may still be on its way out.
    asyncio.run(until(lambda: not running_below(tmp_path), "nothing runs"))
    assert not list(tmp_path.glob("tokenwire-bench-*"))
    assert msgspec.json.decode((tmp_path / "out" / "results.json").read_bytes(), type=Results).samples == []


def running_below(folder: Path) -> list[str]:
    """Returns the processes that run in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "cwd").readlink().is_relative_to(folder):
                found.append(path.name)
    return found
