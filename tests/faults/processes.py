"""Engines, gateways and clients as processes, to be killed, stopped and started again."""

import asyncio
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from harness.command_line import SERVICE, environment
from harness.waiting import until
from tokenwire_client import AsyncClient, Policy

TESTS = Path(__file__).parents[1]
READY_SECONDS = 30.0
# Below those that systems give to connections.
PORTS = range(12_000, 30_000)
# Other runs of the tests begin elsewhere.
_given = itertools.count(random.randrange(len(PORTS)))
# P5: so long may an engine go on with what nobody wants any more.
GHOST_SECONDS = 2.0
# Comes back at once, so that tests are short.
QUICK = Policy(first_wait=0.02, longest_wait=0.2, attempts=1000)


def free_port() -> int:
    """Returns a port that nobody listens on, nor any connection takes by itself while its server is down."""
    while True:
        # In a row, so that none is given twice: who gets one begins to listen later.
        port = PORTS[next(_given) % len(PORTS)]
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


class Nursery:
    """Starts processes by nursery.py; those that are left are killed at its end."""

    def __init__(self) -> None:
        paths = (SERVICE, TESTS.parent / "clients" / "python", TESTS)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=":".join(map(str, paths)), GRPC_ENABLE_FORK_SUPPORT="0"),
            # Ctrl-C is for the tests: they end it.
            start_new_session=True,
        )
        assert self._answer() == "ready"

    def start(self, program: str, arguments: list[str], log: Path) -> int:
        """Starts a process and returns its id."""
        pid: int = self._ask({"do": "start", "program": program, "arguments": arguments, "log": str(log)})
        return pid

    def exit_code(self, pid: int) -> int | None:
        """Returns how a process has ended, or None as long as it runs; told once."""
        code: int | None = self._ask({"do": "look", "pid": pid})
        return code

    def wait(self, pid: int) -> int:
        """Waits for the end of a process that has been killed."""
        code: int = self._ask({"do": "wait", "pid": pid})
        return code

    def close(self) -> None:
        """Kills what is left."""
        self._process.communicate()
        assert self._process.returncode == 0

    def _ask(self, wish: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(wish), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class Process:
    """One process that can be killed and started again at the same port.

    Attributes:
        port: where it listens.
        address: the same as a target.
        killed: whether that has ended it.
        options: its arguments; what is changed counts from the next start on.
    """

    program = ""

    def __init__(self, nursery: Nursery, log: Path, *options: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.options = [part.replace("{port}", str(self.port)) for part in options]
        self._nursery = nursery
        self._log = log
        self._pid: int | None = None
        self._code: int | None = None
        self._begins = 0
        self.killed = False

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._pid is not None, "it does not run"
        return self._pid

    @property
    def output(self) -> str:
        """What it has written since its last start."""
        with self._log.open() as log:
            log.seek(self._begins)
            return log.read()

    @property
    def alive(self) -> bool:
        """Whether it runs, or is stopped."""
        if self._pid is None:
            return False
        self._code = self._nursery.exit_code(self._pid)
        if self._code is not None:
            self._pid = None
        return self._pid is not None

    def start(self) -> None:
        """Starts it; returns before it is ready."""
        assert self._pid is None, "it runs already"
        self._begins = self._log.stat().st_size if self._log.exists() else 0
        self._log.touch()
        self._pid = self._nursery.start(self.program, self.options, self._log)

    async def ready(self) -> None:
        """Waits until it does its work."""

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._pid is not None, "a process is started first"
        os.kill(self._pid, number)

    def kill(self) -> None:
        """Kills it with SIGKILL, and returns once it is gone."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._code, self._pid = self._nursery.wait(self._pid), None
            self.killed = self._code == -signal.SIGKILL

    async def ended(self, seconds: float = 20.0) -> int:
        """Waits for its end and returns its exit code."""
        try:
            await until(lambda: not self.alive, "the process ends", seconds)
        except AssertionError as error:
            self.send(signal.SIGUSR1)
            await asyncio.sleep(1.0)
            error.add_note(self.output)
            raise
        assert self._code is not None
        return self._code


class EngineProcess(Process):
    """The stand-in of engine.py."""

    program = "engine"

    def __init__(self, nursery: Nursery, log: Path, milliseconds: float) -> None:
        super().__init__(nursery, log, "--port", "{port}", "--milliseconds", str(milliseconds))
        self.url = f"http://{self.address}"

    def hold(self, tokens: int | None) -> None:
        """Has every answer wait after so many tokens, from the next start on; None: no more."""
        del self.options[4:]
        if tokens is not None:
            self.options += ["--hold", str(tokens)]

    async def release(self) -> None:
        """Lets answers that wait go on."""
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/release"):
            pass

    async def counts(self) -> dict[str, int]:
        """Returns how many answers it is writing (`running`), and how many it has begun (`started`)."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/counts") as reply:
            counts: dict[str, int] = await reply.json()
            return counts

    async def busy(self, running: int = 1) -> None:
        """Waits until it writes so many answers."""
        await self._writes(running, READY_SECONDS)

    async def idle(self) -> None:
        """Fails unless it writes nothing any more within the time that ghosts have."""
        await self._writes(0, GHOST_SECONDS)

    async def ready(self) -> None:
        """Waits until it answers."""
        await _listens(self)
        await self.counts()

    async def _writes(self, running: int, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            # Another process: nothing but a look can tell.
            while (await self.counts())["running"] != running:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


class Gateway(Process):
    """`tokenwire serve` before some engines; `settings` are flags without dashes, such as journal="memory"."""

    program = "tokenwire"

    def __init__(self, nursery: Nursery, log: Path, engines: dict[str, str], **settings: str) -> None:
        flags = [part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", value)]
        named = [part for key, one in engines.items() for part in ("--engine", f"{key}:{one}" if key else one)]
        super().__init__(nursery, log, "serve", "--listen", "127.0.0.1:{port}", "--log-format", "json", *named, *flags)
        self._engines = [name for name in engines if name]

    def set(self, **settings: str) -> None:
        """Changes settings, from the next start on; the last flag counts."""
        self.options += [part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", value)]

    async def ready(self) -> None:
        """Waits until it serves, and has found its engines."""
        await _listens(self)
        await until(
            lambda: not self.alive or all(map(self._has_found, self._engines)), "engines are found", READY_SECONDS
        )
        assert self.alive, self.output

    async def misses(self, *engines: str) -> None:
        """Waits until it has noticed that engines are gone."""
        async with asyncio.timeout(READY_SECONDS), grpc.aio.insecure_channel(self.address) as channel:
            for engine in engines:
                request = HealthCheckRequest(service=f"engine:{engine}")
                async for reply in HealthStub(channel).Watch(request):
                    if reply.status == HealthCheckResponse.NOT_SERVING:
                        break

    def client(self) -> AsyncClient:
        """Returns a client that comes back quickly."""
        return AsyncClient(self.address, policy=QUICK)

    def _has_found(self, engine: str) -> bool:
        return re.search(rf"^engine {engine} (is ready|\(\w+\): .*, ready$)", self.output, re.MULTILINE) is not None


class ClientProcess(Process):
    """A client of client.py."""

    program = "client"

    def __init__(
        self, nursery: Nursery, log: Path, target: str, prompt: str, tokens: int, grace: float, request_id: str
    ) -> None:
        options = {"target": target, "prompt": prompt, "tokens": tokens, "grace": grace, "request-id": request_id}
        super().__init__(nursery, log, *(part for key, value in options.items() for part in (f"--{key}", str(value))))

    @property
    def told(self) -> list[dict[str, Any]]:
        """What it has printed: texts and cursors."""
        # It may be killed in the middle of a line.
        return [json.loads(line) for line in self.output.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def text(self) -> str:
        """The text that it has printed."""
        return "".join(one["text"] for one in self.told)


P = TypeVar("P", bound=Process)


class Command(Process):
    """A command of `tokenwire`."""

    program = "tokenwire"


class Home:
    """Makes processes that belong to one test.

    Attributes:
        folder: for what they write.
    """

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self.folder = folder
        self._nursery = nursery
        self._processes: list[Process] = []

    def engine(self, milliseconds: float = 1.0, hold: int | None = None) -> EngineProcess:
        """Makes an engine with so many milliseconds between tokens; its answers wait after `hold` tokens."""
        engine = self._made(EngineProcess(self._nursery, self._log("engine"), milliseconds))
        engine.hold(hold)
        return engine

    def gateway(self, engines: dict[str, EngineProcess | str], **settings: str) -> Gateway:
        """Makes a gateway before engines, which are processes, or what follows the name in a setting."""
        named = {name: f"vllm={one.url}" if isinstance(one, EngineProcess) else one for name, one in engines.items()}
        given = {"drain_seconds": "0", "engine_check_seconds": "0.5"} | settings
        return self._made(Gateway(self._nursery, self._log("gateway"), named, **given))

    def client(self, target: str, prompt: str, tokens: int, *, grace: float, request_id: str) -> ClientProcess:
        """Makes a client."""
        log = self._log("client")
        return self._made(ClientProcess(self._nursery, log, target, prompt, tokens, grace, request_id))

    def command(self, *arguments: str) -> Command:
        """Makes a command of the command line."""
        return self._made(Command(self._nursery, self._log("command"), *arguments))

    async def start(self, *processes: Process) -> None:
        """Starts processes, and waits until all are ready."""
        for one in processes:
            one.start()
            # A gateway finds at once what is there before it.
            await one.ready()

    def close(self) -> None:
        """Kills what is left."""
        for one in reversed(self._processes):
            one.kill()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}-{len(self._processes)}.log"

    def _made(self, process: P) -> P:
        self._processes.append(process)
        return process


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """Stops a process with SIGSTOP while the block runs, as a machine does that freezes."""
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        if process.alive:
            process.send(signal.SIGCONT)


async def _listens(process: Process) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            assert process.alive, process.output
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", process.port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.005)
