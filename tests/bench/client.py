"""The load client: makes calls at a gateway and counts what comes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.child import Child
from bench.system import System
from bench.tally import Tally
from bench.void import VoidError

# As many streams share a connection; over HTTP/1.1 each has its own.
_STREAMS_PER_CONNECTION = 100
_CONNECTIONS_MIN = 4
_EXIT_SECONDS = 10
# It writes so when all calls that it is to hold open are.
_HELD = "held"


class Client:
    """Starts load clients.

    Args:
        program: the client's.
    """

    def __init__(self, program: Path) -> None:
        self._program = program

    @contextmanager
    def calling(
        self,
        system: System,
        port: int,
        *,
        streams: int,
        tokens: int,
        seconds_max: float,
        folder: Path,
        name: str,
        hold_seconds: float = 0,
    ) -> Iterator["Calls"]:
        """Makes calls while the block runs; they are given up when it ends.

        Args:
            system: what they are made at.
            port: where it listens.
            streams: how many, all at once.
            tokens: that each answer has.
            seconds_max: after which the client gives up what is still open.
            folder: for its files.
            name: for its files and messages; two at the same time need two.
            hold_seconds: how long calls are kept open once all have had a token, to be given up then; 0: till they end.
        """
        body = folder / f"{name}.body"
        body.write_bytes(system.request(tokens))
        connections = min(streams, max(_CONNECTIONS_MIN, -(-streams // _STREAMS_PER_CONNECTION)))
        numbers = [str(one) for one in (port, streams, connections, tokens)]
        command = [str(self._program), system.wire, *numbers, system.path, str(body), str(round(seconds_max))]
        if hold_seconds:
            command += ["--hold", str(hold_seconds)]
        with Child(name, command, folder=folder) as child:
            yield Calls(child, seconds_max + hold_seconds)


class Calls:
    """A load client that runs."""

    def __init__(self, child: Child, seconds_max: float) -> None:
        self._child = child
        self._seconds_max = seconds_max

    @property
    def over(self) -> bool:
        """Whether all calls have ended."""
        return bool(self._child.ended())

    @property
    def held(self) -> bool:
        """Whether all calls are open and have had a token, if they were to be kept open."""
        return _HELD in self._child.said().split()

    def finish(self) -> Tally:
        """Waits until all calls have ended and returns what the client counted. Raises VoidError if it has not."""
        if not self._child.wait(self._seconds_max + _EXIT_SECONDS):
            raise VoidError("the load client does not end")
        lines = self._child.output.read_bytes().splitlines()
        if not lines:
            raise VoidError(f"the load client counted nothing: {_last_line(self._child)}")
        try:
            return msgspec.json.decode(lines[-1], type=Tally)
        except msgspec.MsgspecError as error:
            raise VoidError(f"the load client's count cannot be read: {error}") from error


def _last_line(child: Child) -> str:
    return (child.said().strip().splitlines() or [child.ended()])[-1]
