"""One life of the child process."""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import BinaryIO

import msgspec

# One line of JSON; more is not the child's.
_MAX_READY_BYTES = 64 * 1024


class StartError(Exception):
    """The child did not come up; the text says why in plain words."""


class Ready(msgspec.Struct, frozen=True, tag_field="event", tag="ready"):
    """What the child tells once it answers; `ctx_per_slot` in tokens, `key` for every request."""

    url: str
    slots: int
    ctx_per_slot: int
    model: str
    key: str = ""


class Process:
    """A child that answers; made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, lifeline: int, ready: Ready) -> None:
        self.ready = ready
        self._process = process
        self._lifeline: int | None = lifeline

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @classmethod
    async def start(cls, command: Sequence[str], *, log: Path, ready_timeout: float) -> "Process":
        """Starts `command` and waits for its ready line.

        Args:
            command: program and arguments.
            log: file for all that the child writes; an older one is kept with `.1` behind its name.
            ready_timeout: seconds until the ready line must have come.

        Raises StartError if the child dies, says that it failed, or says nothing in time.
        """
        lifeline_end, lifeline = os.pipe()
        announce, announce_end = os.pipe()
        process: asyncio.subprocess.Process | None = None
        try:
            try:
                with _open_log(log) as log_file:
                    process = await asyncio.create_subprocess_exec(
                        *command,
                        stdin=lifeline_end,
                        stdout=announce_end,
                        stderr=log_file,
                        env=_environment(),
                        # A terminal sends its Ctrl-C to the whole group: the child would die before the parent drains.
                        start_new_session=True,
                    )
            except OSError as error:
                raise StartError(f"the child cannot be started: {error.strerror}") from error
            finally:
                os.close(lifeline_end)
                os.close(announce_end)
            ready = await _read_ready(announce, ready_timeout)
        except BaseException:
            os.close(lifeline)
            if process is not None:
                await _end(process, 0.0)
            raise
        finally:
            os.close(announce)
        return cls(process, lifeline, ready)

    async def wait(self) -> int:
        """Waits for the child's death; returns its exit code, negative for a signal."""
        code = await self._process.wait()
        self._release()
        return code

    async def stop(self, grace: float = 2.0) -> None:
        """Ends the child: SIGTERM first, SIGKILL if it lives after `grace` seconds."""
        try:
            await _end(self._process, grace)
        finally:
            self._release()

    def _release(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)


def child_command(*, model: Path, alias: str, slots: int, context_per_slot: int, threads: int) -> list[str]:
    """Returns the command of a child that serves `model` under the name `alias`."""
    # By path and with -P: works wherever this module was imported from, and puts no folder on the child's path.
    return [
        *(sys.executable, "-P", str(Path(__file__).with_name("child.py"))),
        *("--model", str(model), "--alias", alias),
        *("--slots", str(slots), "--context-per-slot", str(context_per_slot), "--threads", str(threads)),
    ]


class _Failed(msgspec.Struct, frozen=True, tag_field="event", tag="error"):
    message: str


_LINE: msgspec.json.Decoder[Ready | _Failed] = msgspec.json.Decoder(Ready | _Failed)


def _environment() -> dict[str, str]:
    # OpenMP's default is to spin while it waits; with other work on the cores a stream then takes ten times as long.
    return {**os.environ, "OMP_WAIT_POLICY": "passive"}


def _open_log(log: Path) -> BinaryIO:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    # llama.cpp's complaints quote grammars and schemas of requests.
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600), "wb")


async def _read_ready(announce: int, limit: float) -> Ready:
    try:
        async with asyncio.timeout(limit):
            line = await _read_line(announce)
    except TimeoutError:
        raise StartError("the child was not ready in time") from None
    if not line.endswith(b"\n"):
        raise StartError("the child ended before it was ready")
    try:
        told = _LINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartError("the child said what is not a ready line") from error
    if isinstance(told, _Failed):
        raise StartError(told.message)
    return told


async def _read_line(announce: int) -> bytes:
    """Reads up to a newline or the end, on a bare descriptor: there is no transport that could be left open."""
    loop = asyncio.get_running_loop()
    os.set_blocking(announce, False)
    line = bytearray()
    readable = asyncio.Event()
    loop.add_reader(announce, readable.set)
    try:
        while not line.endswith(b"\n") and len(line) < _MAX_READY_BYTES:
            await readable.wait()
            readable.clear()
            with suppress(BlockingIOError):
                chunk = os.read(announce, 4096)
                if not chunk:
                    break
                line += chunk
    finally:
        loop.remove_reader(announce)
    return bytes(line)


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    """Ends the process and waits for it; when cancelled, kills it, waits and then raises."""
    try:
        if grace > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await _signal(process, SIGTERM)
                    return
    finally:
        if process.returncode is None:
            await asyncio.shield(_signal(process, SIGKILL))


async def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
    await process.wait()
