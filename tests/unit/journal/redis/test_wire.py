"""One connection: who gets which answer, and what happens if none comes."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tokenwire.journal.redis.store import StoreError
from tokenwire.journal.redis.wire import Wire

PING = b"*1\r\n$4\r\nPING\r\n"
# So long nobody waits in these tests.
EVER = 60.0


@asynccontextmanager
async def wired(seconds: float) -> AsyncIterator[tuple[Wire, socket.socket]]:
    """Yields a connection, and its other end."""
    ours, theirs = socket.socketpair()
    _, wire = await asyncio.get_running_loop().create_unix_connection(lambda: Wire(seconds), sock=ours)
    try:
        yield wire, theirs
    finally:
        await wire.close()
        theirs.close()


@pytest.mark.asyncio
async def test_each_gets_its_own_answers_and_who_has_gone_takes_his_along() -> None:
    async with wired(EVER) as (wire, server):
        first, gone, last = wire.ask(PING, 1), wire.ask(PING * 2, 2), wire.ask(PING, 1)
        gone.cancel()
        server.sendall(b":1\r\n:2\r\n:3")
        assert await first == [1]
        server.sendall(b"\r\n:4\r\n")
        assert await last == [4]


@pytest.mark.asyncio
async def test_a_server_that_is_silent_is_given_up() -> None:
    async with wired(0.02) as (wire, server):
        server.sendall(b":1\r\n")
        asked = wire.ask(PING, 1)
        assert await asked == [1]
        first, second = wire.ask(PING, 1), wire.ask(PING, 1)
        for one in (first, second):
            with pytest.raises(StoreError, match="silent"):
                await one
        assert wire.lost


@pytest.mark.asyncio
async def test_an_answer_that_came_while_the_process_stood_still_is_no_silence() -> None:
    async with wired(0.02) as (wire, server):
        loop, (near, far) = asyncio.get_running_loop(), socket.socketpair()

        def stand_still() -> None:
            loop.remove_reader(near)
            server.sendall(b":1\r\n")
            time.sleep(0.1)

        # In a callback of another connection: after that uvloop looks at its timers first, and then at what came.
        loop.add_reader(near, stand_still)
        far.sendall(b"x")
        assert await wire.ask(PING, 1) == [1]
        near.close()
        far.close()


@pytest.mark.asyncio
async def test_who_waits_for_nothing_does_not_mind_silence() -> None:
    async with wired(0.01) as (wire, server):
        asked = wire.ask(PING, 1)
        server.sendall(b":1\r\n")
        await asked
        while wire._timer is not None:  # noqa: ASYNC110 - nobody is told when a timer fires
            await asyncio.sleep(0.001)
        assert not wire.lost


@pytest.mark.asyncio
@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 400 Bad Request\r\n"])
async def test_a_connection_that_breaks_or_leads_elsewhere_fails_all_that_wait(last: bytes) -> None:
    async with wired(EVER) as (wire, server):
        asked = [wire.ask(PING, 1), wire.ask(PING, 1)]
        server.sendall(last)
        if not last:
            server.close()
        for one in asked:
            with pytest.raises(StoreError):
                await one
        assert wire.lost


@pytest.mark.asyncio
async def test_more_answers_than_were_asked_for_are_the_end_of_it() -> None:
    async with wired(EVER) as (wire, server):
        asked = wire.ask(PING, 1)
        server.sendall(b":1\r\n:2\r\n")
        await asked
        assert wire.lost
