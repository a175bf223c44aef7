"""One life of a child, with scripts in the place of llama.cpp."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import tokenwire
from harness.waiting import until
from tokenwire.engines.llamacpp.process import Process, Ready, StartError, child_command

SOURCE = Path(tokenwire.__file__).parents[1]
READY = '{"event": "ready", "url": "http://127.0.0.1:1", "slots": 2, "ctx_per_slot": 64, "model": "tiny"}'
SAY_READY = f"import sys, time, os, signal; print('{READY}', flush=True)"
WAIT = "sys.stdin.read()"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def launch(tmp_path: Path, *lines: str, limit: float = 20.0) -> Process:
    command = [sys.executable, "-c", "\n".join(lines)]
    return await Process.start(command, log=tmp_path / "logs" / "child.log", ready_timeout=limit)


@asynccontextmanager
async def launched(tmp_path: Path, *lines: str) -> AsyncGenerator[Process, None]:
    """Runs a child as long as the block at most: uvloop does not close while one lives."""
    process = await launch(tmp_path, *lines)
    try:
        yield process
    finally:
        await process.stop(grace=0.0)


@pytest.mark.asyncio
async def test_a_child_is_there_once_it_said_that_it_is_ready(tmp_path: Path) -> None:
    async with launched(tmp_path, SAY_READY, WAIT) as process:
        assert process.ready == Ready(url="http://127.0.0.1:1", slots=2, ctx_per_slot=64, model="tiny")
        await process.stop()
        assert not alive(process.pid)


@pytest.mark.asyncio
async def test_what_the_child_writes_to_standard_error_is_in_its_log_and_the_log_before_is_kept(tmp_path: Path) -> None:
    for word in ("first", "second"):
        async with launched(tmp_path, f"import sys; print('{word}', file=sys.stderr, flush=True)", SAY_READY, WAIT):
            pass
    log = tmp_path / "logs" / "child.log"
    assert (log.read_text(), log.with_name("child.log.1").read_text()) == ("second\n", "first\n")
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.asyncio
async def test_the_exit_code_of_a_child_that_dies_is_told(tmp_path: Path) -> None:
    async with launched(tmp_path, SAY_READY, "os._exit(7)") as process:
        assert await process.wait() == 7


@pytest.mark.asyncio
async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    async with launched(tmp_path, ignore, SAY_READY, WAIT) as process:
        await process.stop(grace=0.05)
        assert await process.wait() == -signal.SIGKILL


@pytest.mark.asyncio
async def test_a_child_that_heeds_sigterm_is_not_killed(tmp_path: Path) -> None:
    async with launched(tmp_path, SAY_READY, WAIT) as process:
        await process.stop(grace=20.0)
        assert await process.wait() == -signal.SIGTERM


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['print(\'{"event": "error", "message": "no such model"}\')'], "no such model"),
        (["raise SystemExit(3)"], "ended before it was ready"),
        (["print('hello', flush=True)", "import sys; sys.stdin.read()"], "not a ready line"),
        (['print(\'{"event": "ready"}\', flush=True)', "import sys; sys.stdin.read()"], "not a ready line"),
    ],
)
async def test_a_child_that_does_not_come_up_says_why_in_plain_words(
    tmp_path: Path, lines: list[str], words: str
) -> None:
    with pytest.raises(StartError, match=words) as caught:
        await launch(tmp_path, *lines)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.asyncio
async def test_a_program_that_does_not_exist_is_a_start_that_failed(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be started"):
        await Process.start([str(tmp_path / "absent")], log=tmp_path / "child.log", ready_timeout=20.0)


@pytest.mark.asyncio
async def test_a_child_that_says_nothing_is_ended_after_the_limit(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    write_pid = f"import os, sys, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))"
    with pytest.raises(StartError, match="not ready in time"):
        await launch(tmp_path, write_pid, WAIT, limit=1.0)
    assert not (pid_file.exists() and alive(int(pid_file.read_text())))


@pytest.mark.asyncio
async def test_cancelling_a_start_ends_the_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    write_pid = f"import os, sys, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))"
    start = asyncio.create_task(launch(tmp_path, write_pid, WAIT))
    written: Callable[[], bool] = lambda: pid_file.exists() and bool(pid_file.read_text())  # noqa: E731
    await until(written, "the child runs")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not alive(int(pid_file.read_text()))


@pytest.mark.asyncio
async def test_the_child_has_a_process_group_of_its_own_and_waits_passively(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = "f'{os.getpgid(0)} {os.environ[\"OMP_WAIT_POLICY\"]}'"
    say = f"import os, pathlib; pathlib.Path({str(out)!r}).write_text({told})"
    async with launched(tmp_path, say, SAY_READY, WAIT) as process:
        assert out.read_text() == f"{process.pid} passive"


@pytest.mark.asyncio
async def test_the_real_child_refuses_a_file_that_is_no_model(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGML and more")
    command = child_command(model=model, alias="x", slots=1, context_per_slot=64, threads=1)
    with pytest.raises(StartError, match="not in GGUF format"):
        await Process.start(command, log=tmp_path / "child.log", ready_timeout=60.0)
    model.unlink()
    with pytest.raises(StartError, match="cannot be read"):
        await Process.start(command, log=tmp_path / "child.log", ready_timeout=60.0)


@pytest.mark.asyncio
async def test_what_the_child_writes_to_standard_output_is_in_its_log_and_not_in_the_ready_line(tmp_path: Path) -> None:
    # `os.system` writes to the file descriptor, as C++ does.
    noise = (
        "from tokenwire.engines.llamacpp import child; import os; announce = child._redirect(); os.system('echo noise')"
    )
    say = f"os.write(announce, b'''{READY}\\n'''); os.system('echo more'); import sys"
    async with launched(tmp_path, f"import sys; sys.path.insert(0, {str(SOURCE)!r})", noise, say, WAIT) as process:
        assert process.ready.model == "tiny"
        log = tmp_path / "logs" / "child.log"
        await until(lambda: log.read_text() == "noise\nmore\n", "the log holds both")
