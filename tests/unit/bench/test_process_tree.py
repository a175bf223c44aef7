"""CPU time and memory of a process and all that it has started."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import process_tree
from bench.child import Child
from bench.ports import listening
from bench.process_tree import ProcessTree
from harness.waiting import until

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
# What a script says when it has come somewhere.
SAY = "import pathlib; say = lambda word: pathlib.Path(word).touch()\n"
REST = "import time; time.sleep(600)\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    """Starts scripts, which end with the test."""
    started: list[Child] = []

    def start(script: str) -> Child:
        child = Child(f"child-{len(started)}", [sys.executable, "-c", SAY + script], folder=tmp_path)
        started.append(child)
        return child

    yield start
    for child in started:
        child.stop(grace_seconds=0)


def wait(condition: Callable[[], bool], what: str) -> None:
    asyncio.run(until(condition, what, 30))


def test_cpu_time_of_a_child_that_has_ended_counts(start: Callable[[str], Child], tmp_path: Path) -> None:
    burn = BURN.format(seconds=0.3)
    child = start(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); say('over'); {REST}")
    wait((tmp_path / "over").exists, "the grandchild has ended")
    assert len(child.tree.pids()) == 1
    assert 0.3 <= child.tree.cpu_seconds() < 2


def test_cpu_time_never_falls_while_children_come_and_go(start: Callable[[str], Child], tmp_path: Path) -> None:
    burn = BURN.format(seconds=0.05)
    child = start(
        "import subprocess, sys\n"
        f"for _ in range(5): subprocess.run([sys.executable, '-S', '-c', {burn!r}])\n"
        f"say('over'); {REST}"
    )
    seen = [0.0]

    def over() -> bool:
        seen.append(child.tree.cpu_seconds())
        return (tmp_path / "over").exists()

    wait(over, "all have ended")
    # What a process has used is known to the nanosecond while it lives, and to the tick once it has ended.
    ticks = 2 / os.sysconf("SC_CLK_TCK")
    assert all(later >= earlier - ticks for earlier, later in itertools.pairwise(seen))
    assert child.tree.cpu_seconds() >= 0.25 - 5 * ticks


def test_an_orphan_still_counts_and_is_still_ended(start: Callable[[str], Child], tmp_path: Path) -> None:
    rest = SAY + BURN.format(seconds=0.2) + "say('burnt')\n" + REST
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {rest!r}]); say('orphaned')"
    child = start(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SAY + middle!r}]); {REST}")
    wait((tmp_path / "burnt").exists, "the orphan has used its time")
    assert len(child.tree.pids()) == 2
    assert child.tree.cpu_seconds() >= 0.2
    child.stop(grace_seconds=0)
    assert child.tree.pids() == []


def test_what_an_orphan_has_used_is_kept_when_it_ends(start: Callable[[str], Child], tmp_path: Path) -> None:
    orphan = SAY + BURN.format(seconds=0.2) + "say('burnt')\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    child = start(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {middle!r}]); {REST}")
    wait((tmp_path / "burnt").exists, "the orphan has used its time")
    before = child.tree.cpu_seconds()
    (tmp_path / "go").touch()
    wait(lambda: len(child.tree.pids()) == 1, "the orphan has ended")
    assert child.tree.cpu_seconds() >= before >= 0.2


def test_a_child_with_a_session_of_its_own_counts_and_is_ended(start: Callable[[str], Child], tmp_path: Path) -> None:
    rest = SAY + "say('up')\n" + REST
    child = start(
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {rest!r}], start_new_session=True); {REST}"
    )
    wait((tmp_path / "up").exists, "the grandchild runs")
    assert len(child.tree.pids()) == 2
    child.stop()
    assert child.tree.pids() == []


def test_a_process_of_somebody_else_does_not_count(start: Callable[[str], Child], tmp_path: Path) -> None:
    child = start(f"say('up'); {REST}")
    other = start(BURN.format(seconds=0.3) + f"say('burnt'); {REST}")
    wait(lambda: (tmp_path / "up").exists() and (tmp_path / "burnt").exists(), "both are there")
    assert child.tree.pids() == [child.pid]
    assert other.tree.cpu_seconds() - child.tree.cpu_seconds() > 0.15
    assert ProcessTree(os.getpid()).cpu_seconds() >= other.tree.cpu_seconds()


def test_memory_of_children_counts(start: Callable[[str], Child], tmp_path: Path) -> None:
    size = 64 * 1024 * 1024
    fill = SAY + f"full = bytes(range(256)) * {size // 256}; say('full'); {REST}"
    child = start(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {fill!r}]); {REST}")
    wait((tmp_path / "full").exists, "the grandchild has its memory")
    assert size < child.tree.rss_bytes() < 2 * size


def test_a_socket_that_a_child_listens_at_is_found(start: Callable[[str], Child], tmp_path: Path) -> None:
    listen = SAY + (
        "import socket; one = socket.create_server(('127.0.0.1', 0)); new = pathlib.Path('port.new')\n"
        "new.write_text(str(one.getsockname()[1])); new.rename('port')\n"
    )
    listen += REST
    child = start(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {listen!r}]); {REST}")
    other = start(f"say('up'); {REST}")
    wait((tmp_path / "port").exists, "the grandchild listens")
    found = listening(int((tmp_path / "port").read_text()))
    assert len(found) == 1
    assert child.tree.holds(found)
    assert not other.tree.holds(found)


def test_a_name_with_parentheses_and_spaces_is_read(start: Callable[[str], Child], tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to(subprocess.run(["which", "sleep"], check=True, capture_output=True, text=True).stdout.strip())
    child = Child("odd", [str(program), "600"], folder=tmp_path)
    try:
        wait(lambda: Path(f"/proc/{child.pid}/comm").read_text().strip() == program.name, "it has its name")
        assert child.tree.pids() == [child.pid]
    finally:
        child.stop()


def made_up(pid: int, parent: int, *, own: float, children: float = 0.0, session: int = 900) -> process_tree._Process:
    return process_tree._Process(
        pid=pid,
        started=pid,
        parent=parent,
        session=session,
        zombie=False,
        own_seconds=own,
        children_seconds=children,
    )


def test_an_orphan_that_is_gone_keeps_its_time_and_a_child_with_a_parent_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = made_up(10, 1, own=1.0)
    looks = [
        # The orphan and its own child have left the session; the tree has seen them before their parent went.
        [root, made_up(11, 10, own=2.0), made_up(12, 11, own=4.0, session=12), made_up(13, 10, own=8.0)],
        [root, made_up(12, 1, own=5.0, session=12), made_up(13, 10, own=8.0)],
        # The orphan is gone; the other child was waited for.
        [made_up(10, 1, own=1.0, children=2.0 + 8.0)],
    ]
    tree = ProcessTree(10)
    found = []
    for processes in looks:
        monkeypatch.setattr(process_tree, "_processes", lambda processes=processes: iter(processes))
        found.append(tree.cpu_seconds())
    assert found[0] == 15
    assert found[2] == 1 + 10 + 5
