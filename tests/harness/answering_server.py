"""A server in a process of its own, whose answers are large: what it holds in memory is its own alone."""

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from harness.chosen_transport import CHOSEN
from tokenwire.app import build
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Job, Piece
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step
from tokenwire.server import run
from tokenwire.settings import Settings
from tokenwire.telemetry.logs import configure_logs

ANSWER_BYTES = 1024 * 1024
TESTS = Path(__file__).parents[1]
PATHS = f"{TESTS.parent / 'service'}:{TESTS}"


@dataclass(frozen=True)
class AnsweringServer:
    """The server from outside."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def memory(self) -> int:
        """Bytes of memory that are resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def files(self) -> int:
        """Open file descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def at_rest(self) -> int:
        """Gives back the memory that is free, and returns how many tasks the event loop has."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGUSR1)
        return int(await self.process.stdout.readline())


@asynccontextmanager
async def answering_server(*, stall_seconds: float) -> AsyncIterator[AnsweringServer]:
    """Runs the server while the block runs. Each answer is a MiB at once."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(stall_seconds),
        CHOSEN,
        stdout=asyncio.subprocess.PIPE,
        # One arena: what is free is found again, whichever thread frees it.
        env={"PYTHONPATH": PATHS, "MALLOC_ARENA_MAX": "1"},
    )
    try:
        assert process.stdout is not None
        yield AnsweringServer(process, int(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _script(job: Job) -> list[Step]:
    piece = Piece(channel=Channel(), text="0123456789abcdef" * 64, token_count=0)
    return [Emit((piece,) * (ANSWER_BYTES // 1024)), Emit((ChoiceDone(choice=0, finish_reason=FinishReason.STOP),))]


async def _main(stall_seconds: float, transport: str) -> None:
    configure_logs(level="error", log_format="json")
    settings = {"listen": "127.0.0.1:0", "stall_seconds": stall_seconds, "transport": transport}
    app = build(Settings.model_validate(settings), [ScriptedEngine(script=_script)])
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print(len(asyncio.all_tasks()), flush=True))
    await run(app, lambda port: print(port, flush=True))


def _rest() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    print(len(asyncio.all_tasks()), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(float(sys.argv[1]), sys.argv[2]))
