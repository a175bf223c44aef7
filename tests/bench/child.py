"""A process that the benchmark starts and ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process_tree import ProcessTree

_LEASH = Path(__file__).with_name("leash.py")
# What would change how a gateway runs without the benchmark's doing.
_FOREIGN = ("OTEL_", "TOKENWIRE_", "GRPC_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
_LOG_TAIL_BYTES = 4096
_GRACE_SECONDS = 5.0


class Child:
    """A process in a session of its own, so that Ctrl-C reaches the benchmark alone, which then ends it.

    It and everything it has started end with the block. It ends with the benchmark, too, however that ends.

    Args:
        name: what it is, for messages.
        command: with its arguments.
        folder: where it runs; its output goes to files there.
        environment: variables besides the benchmark's own, of which those that steer gateways are not handed on.

    Attributes:
        output: the file with its standard output.
        tree: the process and what it has started.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.output = folder / f"{name}.out"
        self.log = folder / f"{name}.log"
        leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        with self.output.open("wb") as output, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=folder,
                env=kept | dict(environment or {}),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.tree = ProcessTree(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After Ctrl-C, or any error, nothing need end well.
        self.stop(grace_seconds=0 if kind is not None else _GRACE_SECONDS)

    def ended(self) -> str:
        """Returns how it has ended, in a few words; empty while it runs."""
        code = self._process.poll()
        if code is None:
            return ""
        return f"{self.name} {'was killed by signal' if code < 0 else 'ended with code'} {abs(code)}"

    def wait(self, seconds: float) -> bool:
        """Waits until it has ended; returns whether it has."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def signal(self, number: signal.Signals) -> None:
        """Sends it alone a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Asks it to end, waits so long, and kills what is left of it and of what it has started."""
        # A look before it ends: children whose parent has gone are found again only if they were seen.
        self.tree.pids()
        try:
            if grace_seconds:
                self.signal(signal.SIGTERM)
                self.wait(grace_seconds)
        finally:
            self._kill()

    def said(self) -> str:
        """Returns the end of what it has written to standard error."""
        with suppress(OSError):
            return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return ""

    def _kill(self) -> None:
        for _ in range(100):
            left = self.tree.pids()
            self.signal(signal.SIGKILL)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            if not left:
                return
            time.sleep(0.01)
