"""Starting gateways: what keeps one from being measured."""

import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import cast

import pytest

from bench import gateway as starting
from bench.child import Child
from bench.client import Client
from bench.collecting import Sink
from bench.engine import Engine
from bench.gateway import Gateway, running
from bench.ports import Ports, is_free, listening
from bench.site import Site
from bench.system import Companion, Launch, Stage
from bench.void import VoidError
from unit.bench.measured import Fake, tally

SERVE = "import socket, sys, time; one = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


class Started(Fake):
    """A system that is started by a test's own command."""

    def __init__(
        self, *command: str, companions: Sequence[Companion] = (), before: Callable[[int], None] | None = None
    ):
        super().__init__()
        self._command = command
        self._companions = companions
        self._before = before

    def launch(self, stage: Stage) -> Launch:
        if self._before is not None:
            self._before(stage.port)
        return Launch(command=[*self._command, str(stage.port)], companions=self._companions)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    child = cast("Child", None)
    return Site(
        client=Client(Path("client")),
        engine=Engine(child, {50: 1}),
        collector=Sink(child, 1, (1, "/")),
        ports=Ports(Random()),
        folder=tmp_path,
    )


@pytest.fixture
def occupy() -> Iterator[Callable[[int], None]]:
    """Listens at a port until the test ends."""
    listeners: list[socket.socket] = []
    yield lambda port: listeners.append(socket.create_server(("127.0.0.1", port)))
    for one in listeners:
        one.close()


def start(site: Site, system: Started, copies: int = 1) -> None:
    with running(site, system, 50, copies=copies):
        pass


def test_a_busy_port_is_void(site: Site, occupy: Callable[[int], None]) -> None:
    with pytest.raises(VoidError, match=r"port [0-9]+ is busy$"):
        start(site, Started(sys.executable, "-c", SERVE, before=occupy))


def test_somebody_else_on_the_port_is_not_measured_in_the_gateways_place(
    site: Site, occupy: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "is_free", lambda _: True)
    with pytest.raises(VoidError, match=r"port [0-9]+ is busy: another process listens there"):
        start(site, Started(sys.executable, "-c", "import time; time.sleep(600)", before=occupy))


def test_a_gateway_that_ends_at_once_is_void_and_what_it_said_is_kept(site: Site) -> None:
    with pytest.raises(VoidError, match="takes no connections: gateway-0 ended with code 1") as error:
        start(site, Started(sys.executable, "-c", "import sys; sys.exit('no luck')"))
    assert error.value.said == "no luck"


def test_a_gateway_that_answers_no_call_is_void(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "FIRST_CALL_SECONDS_MAX", 0.1)
    monkeypatch.setattr(starting, "_first_call", lambda *_: "1 of 1 calls failed")
    with pytest.raises(VoidError, match="the gateway answers no first call: 1 of 1 calls failed"):
        start(site, Started(sys.executable, "-c", SERVE))


def test_what_is_needed_beside_a_gateway_must_start(site: Site, tmp_path: Path) -> None:
    beside = Companion(command=[sys.executable, "-c", "import sys; sys.exit(2)"], socket=tmp_path / "socket")
    with pytest.raises(VoidError, match="what runs beside the gateway does not start: companion-0 ended with code 2"):
        start(site, Started(sys.executable, "-c", SERVE, companions=[beside]))


def test_copies_have_a_port_each_and_their_cost_adds_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    def first_call(_site: Site, _gateway: Gateway, port: int) -> str:
        called.append(port)
        return ""

    monkeypatch.setattr(starting, "_first_call", first_call)
    with running(site, Started(sys.executable, "-c", SERVE), 50, copies=2) as both:
        assert len(set(both.doors)) == len(both.pids()) == 2
        assert called == both.doors
        assert both.cpu_seconds() == pytest.approx(sum(one.tree.cpu_seconds() for one in both.copies), abs=0.1)
        assert both.rss_bytes() > both.copies[0].tree.rss_bytes()
        assert not both.ended()
        both.copies[1].stop(grace_seconds=0)
        assert both.ended() == "gateway-1 was killed by signal 9"
    assert not any(listening(door) for door in both.doors)
    assert not both.folder.exists()


def test_ports_are_given_once_and_are_free() -> None:
    ports = Ports(Random(1))
    given = [ports.take() for _ in range(50)]
    assert len(set(given)) == 50
    with socket.create_server(("127.0.0.1", given[0])):
        assert not is_free(given[0])
        assert Ports(Random(1)).take() != given[0]
    assert tally().failed == 0
    assert Gateway(Fake(), Path()).ended() == ""
