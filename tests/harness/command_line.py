"""`tokenwire` as a process of its own: behind pipes, or on a terminal."""

import asyncio
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.chosen_transport import VARIABLES

SERVICE = Path(__file__).parents[2] / "service"
# Warnings are errors there too.
COMMAND = (sys.executable, "-W", "error", "-m", "tokenwire")


def environment(**variables: str) -> dict[str, str]:
    """Returns an environment in which nothing of the tester's own is set."""
    home = os.environ.get("HOME", "/")
    return {"PATH": os.defpath, "HOME": home, "PYTHONPATH": str(SERVICE), "TERM": "xterm", **VARIABLES, **variables}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The output's lines, as tab-separated values."""
        return [line.split("\t") for line in self.out.splitlines()]


@asynccontextmanager
async def begun(
    *arguments: str, piped: bool = False, variables: dict[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a command behind pipes while the block runs; its standard input is empty unless `piped`."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdin=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**(variables or {})),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def outcome(process: asyncio.subprocess.Process, given: str = "") -> Outcome:
    """Waits for the end of a command; tells what of its output has not been read."""
    out, err = await process.communicate(given.encode() if given else None)
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def tokenwire(*arguments: str, given: str = "", variables: dict[str, str] | None = None) -> Outcome:
    """Runs a command to its end, with `given` on its standard input."""
    async with begun(*arguments, piped=bool(given), variables=variables) as process:
        return await outcome(process, given)


async def interrupt(process: asyncio.subprocess.Process) -> None:
    """Presses Ctrl-C."""
    process.send_signal(signal.SIGINT)


class Terminal:
    """A command that runs on a terminal, and what that shows."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen = ""
        self._master = master
        self._grown = asyncio.Event()
        self._closed = asyncio.Event()
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def text(self) -> str:
        """What is shown, without colours and line ends as they are in a file."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.seen).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Presses keys."""
        os.write(self._master, text.encode())

    async def shows(self, text: str) -> None:
        """Waits until the terminal shows a text."""
        async with asyncio.timeout(20):
            while text not in self.text:
                assert not self._closed.is_set(), f"{text!r} was never shown: {self.seen!r}"
                self._grown.clear()
                await self._grown.wait()

    async def ended(self) -> int:
        """Waits for the end of the command and of its output, and returns the exit code."""
        async with asyncio.timeout(20):
            await self._closed.wait()
            return await self.process.wait()

    def _read(self) -> None:
        data = b""
        # When the last process has left, Linux answers with an error.
        with suppress(OSError):
            data = os.read(self._master, 65536)
        self.seen += data.decode(errors="replace")
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
            self._closed.set()
        self._grown.set()


@asynccontextmanager
async def on_terminal(*arguments: str, variables: dict[str, str] | None = None) -> AsyncIterator[Terminal]:
    """Runs a command on a terminal while the block runs."""
    master, slave = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(COLUMNS="200", **(variables or {})),
            start_new_session=True,
        )
    finally:
        os.close(slave)
    terminal = Terminal(master, process)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
