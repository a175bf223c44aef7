"""A gateway that has been started to be measured."""

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.child import Child
from bench.engine import takes_connections
from bench.ports import is_free, listening
from bench.site import Site
from bench.system import Companion, Launch, Stage, System
from bench.void import VoidError, miscounted

# Some load half of PyPI first.
START_SECONDS_MAX = 120.0
# Once it listens.
FIRST_CALL_SECONDS_MAX = 20.0
_FIRST_CALL_SECONDS = 5
_POLL_SECONDS = 0.02


class Gateway:
    """A system that serves.

    Attributes:
        system: what it is.
        doors: the ports where it listens; several only if several copies were asked for.
        folder: its own.
        observed: whether it sends spans or metrics to the collector.
    """

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.doors: list[int] = []
        self.folder = folder
        self.observed = False
        self.copies: list[Child] = []
        self.companions: list[Child] = []

    def cpu_seconds(self) -> float:
        """Returns the CPU time of the gateway and all it has started, in seconds."""
        return sum(one.tree.cpu_seconds() for one in self.copies)

    def companion_seconds(self) -> float:
        """Returns the CPU time of what runs beside it, in seconds."""
        return sum(one.tree.cpu_seconds() for one in self.companions)

    def rss_bytes(self) -> int:
        """Returns the resident memory of the gateway and all it has started."""
        return sum(one.tree.rss_bytes() for one in self.copies)

    def pids(self) -> list[int]:
        """Returns the ids of its processes."""
        return [pid for one in self.copies for pid in one.tree.pids()]

    def ended(self) -> str:
        """Returns what of it has ended though it should not, in a few words; empty if nothing."""
        return next((told for one in (*self.copies, *self.companions) if (told := one.ended())), "")

    def said(self) -> str:
        """Returns the last of what its processes have written to standard error."""
        return "\n".join(text for one in (*self.copies, *self.companions) if (text := one.said().strip()))


@contextmanager
def running(site: Site, system: System, rate: int, *, copies: int = 1) -> Iterator[Gateway]:
    """Starts a system afresh, waits until it serves, and ends it with the block, with all that it has started.

    Args:
        site: what it is started with.
        system: what is started.
        rate: tokens per second of each stream of the engine that it asks.
        copies: how many, each at a port of its own.

    Raises:
        VoidError: if it does not serve, or another process has its port.
    """
    folder = Path(tempfile.mkdtemp(prefix="g", dir=site.folder))
    gateway = Gateway(system, folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            for _ in range(copies):
                _start(site, gateway, rate, stack)
        except VoidError as error:
            error.said = gateway.said()
            raise
        yield gateway


def _start(site: Site, gateway: Gateway, rate: int, stack: ExitStack) -> None:
    number = len(gateway.copies)
    own = gateway.folder / str(number)
    own.mkdir()
    stage = Stage(
        port=site.ports.take(),
        engine_port=site.engine.ports[rate],
        folder=own,
        collector_url=site.collector.url,
    )
    launch = gateway.system.launch(stage)
    gateway.observed = launch.observed
    for companion in launch.companions:
        beside = _beside(companion, len(gateway.companions), gateway.folder)
        gateway.companions.append(stack.enter_context(beside))
    if not is_free(stage.port):
        raise VoidError(f"port {stage.port} is busy")
    child = Child(f"gateway-{number}", launch.command, folder=own, environment=launch.environment)
    gateway.copies.append(stack.enter_context(child))
    gateway.doors.append(stage.port)
    _wait_until_it_serves(site, gateway, child, launch, stage.port)


@contextmanager
def _beside(companion: Companion, number: int, folder: Path) -> Iterator[Child]:
    with Child(f"companion-{number}", companion.command, folder=folder) as child:
        _wait(lambda: _answers(companion.socket), child, "what runs beside the gateway does not start")
        yield child


def _wait_until_it_serves(site: Site, gateway: Gateway, child: Child, launch: Launch, port: int) -> None:
    if launch.ready_path:
        _wait(lambda: _is_ok(port, launch.ready_path), child, "the gateway does not say that it is ready")
    _wait(lambda: takes_connections(port), child, "the gateway takes no connections")
    # Somebody else's server on this port would be measured in its place.
    if not child.tree.holds(listening(port)):
        raise VoidError(f"port {port} is busy: another process listens there")
    _wait_for_a_first_call(site, gateway, child, port)


def _wait_for_a_first_call(site: Site, gateway: Gateway, child: Child, port: int) -> None:
    deadline = time.monotonic() + FIRST_CALL_SECONDS_MAX
    while wrong := _first_call(site, gateway, port):
        if told := child.ended():
            raise VoidError(f"the gateway answers no first call: {told}")
        if time.monotonic() > deadline:
            raise VoidError(f"the gateway answers no first call: {wrong}")
        time.sleep(_POLL_SECONDS)


def _first_call(site: Site, gateway: Gateway, port: int) -> str:
    first = site.client.calling(
        gateway.system,
        port,
        streams=1,
        tokens=1,
        seconds_max=_FIRST_CALL_SECONDS,
        folder=gateway.folder,
        name="first-call",
    )
    try:
        with first as calls:
            return miscounted(calls.finish())
    except VoidError as error:
        return str(error)


def _wait(condition: Callable[[], bool], child: Child, otherwise: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not condition():
        if told := child.ended():
            raise VoidError(f"{otherwise}: {told}")
        if time.monotonic() > deadline:
            raise VoidError(f"{otherwise} after {START_SECONDS_MAX:.0f} seconds")
        time.sleep(_POLL_SECONDS)


def _is_ok(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(str(path))
        except OSError:
            return False
    return True
