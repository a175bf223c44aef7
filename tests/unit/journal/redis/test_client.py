"""Commands to a real server: how one is let in, and what it refuses."""

import asyncio
from pathlib import Path

import pytest

from harness.redis_server import RedisServer
from tokenwire.journal.journal import JournalError
from tokenwire.journal.redis.address import Address
from tokenwire.journal.redis.client import Client, call
from tokenwire.journal.redis.scripts import INCARNATION
from tokenwire.journal.redis.store import StoreError


@pytest.mark.asyncio
async def test_any_number_of_callers_share_one_connection(redis_server: RedisServer) -> None:
    client, other = Client(Address(redis_server.url), 5.0), Client(Address(redis_server.url), 5.0)
    before = len((await other.one("CLIENT", "LIST")).splitlines())
    answers = await asyncio.gather(*(client.one("ECHO", str(number)) for number in range(300)))
    assert [int(answer) for answer in answers] == list(range(300))
    assert len((await other.one("CLIENT", "LIST")).splitlines()) == before + 1
    await client.close()
    await other.close()


@pytest.mark.asyncio
async def test_a_caller_that_is_cancelled_harms_nobody(redis_server: RedisServer) -> None:
    client = Client(Address(redis_server.url), 5.0)
    await client.one("PING")
    gone = asyncio.create_task(client.one("ECHO", "gone"))
    asked = asyncio.create_task(client.one("ECHO", "here"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asked == b"here"
    with pytest.raises(asyncio.CancelledError):
        await gone
    await client.close()


@pytest.mark.asyncio
async def test_a_script_that_the_server_does_not_have_is_given_to_it(own_server: RedisServer) -> None:
    client = Client(Address(own_server.url), 5.0)
    for _ in range(2):
        name, _ = await client.one(*call(INCARNATION, ["key"], "one"))
        assert name == b"one"
        await client.one("SCRIPT", "FLUSH")
    await client.close()


@pytest.mark.asyncio
async def test_credentials_and_a_database_are_told_first(own_server: RedisServer) -> None:
    own_server.ask("ACL", "SETUSER", "me", "on", ">secret", "~*", "+@all")
    own_server.ask("CONFIG", "SET", "requirepass", "open")
    url = own_server.url.removesuffix("/0") + "/3"
    for asked in (
        Client(Address(url, username="me", password="secret"), 5.0),
        Client(Address(url, password="open"), 5.0),
    ):
        told = await asked.one("CLIENT", "INFO")
        assert b" db=3 " in told
        assert b" name=tokenwire " in told
        await asked.close()
    for address in (Address(url), Address(url, password="wrong")):
        refused = Client(address, 5.0)
        with pytest.raises(StoreError, match="refuses the credentials"):
            await refused.one("PING")
        await refused.close()


@pytest.mark.asyncio
async def test_a_server_is_reached_by_its_socket_in_the_file_system(redis_server: RedisServer, tmp_path: Path) -> None:
    server = RedisServer(redis_server._program, "--unixsocket", str(tmp_path / "s"))
    server.start()
    client = Client(Address(f"unix://{tmp_path / 's'}?db=2"), 5.0)
    assert b" db=2 " in await client.one("CLIENT", "INFO")
    await client.close()
    server.close()


@pytest.mark.asyncio
async def test_what_is_refused_is_told_by_its_name_alone(redis_server: RedisServer) -> None:
    client = Client(Address(redis_server.url), 5.0)
    await client.run(("SET", "refused", "x"))
    with pytest.raises(StoreError, match=r"\(WRONGTYPE\)$"):
        await client.run(("PING",), ("LPUSH", "refused", "secret"))
    assert await client.one("PING") == b"PONG"
    await client.close()


@pytest.mark.parametrize("url", ["http://host", "redis://host?nonsense=1", "redis://host:port"])
def test_an_address_that_means_nothing_is_refused_before_it_is_used(url: str) -> None:
    with pytest.raises(JournalError, match="no redis://"):
        Address(url)
