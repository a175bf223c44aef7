"""Connections that wait for the next stream: how many, how long, and what comes too late. Time jumps here."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from harness.clock import JumpingLoop
from tokenwire.domain.errors import EngineError
from tokenwire.engines.exchange import Exchange, UnheardError
from tokenwire.engines.framing import EVENTS
from tokenwire.engines.idle import IdleConnections
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, chunk

WHOLE = chunk(b"data: a\n\n")


class Wire:
    """A transport that is told what was done to it."""

    def __init__(self) -> None:
        self.closed = False
        self.unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Pool:
    """Idle connections, and those that were made for them."""

    def __init__(self, **limits: Any) -> None:
        self.idle = IdleConnections(**limits)
        self.wires: list[Wire] = []

    def used(self, answer: bytes = STREAM_HEAD + WHOLE + LAST_CHUNK, *, whole: bool = True) -> Exchange:
        """Returns a new connection on which an answer has come; `whole`: its reader has all of it."""
        self.wires.append(Wire())
        one = Exchange(lambda: 0.0, self.idle.forget)
        one.connection_made(self.wires[-1])  # type: ignore[arg-type]
        one.ask(b"x", EVENTS, lambda payloads: whole)
        one.data_received(answer)
        return one

    @property
    def open(self) -> list[bool]:
        """Which of the connections are open."""
        return [not wire.closed for wire in self.wires]


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(work)


def test_a_connection_waits_no_longer_than_it_may_each_from_its_own_time() -> None:
    async def work() -> None:
        pool = Pool(seconds=2.0)
        for _ in range(3):
            pool.idle.keep(pool.used())
            await asyncio.sleep(0.75)
        # At 2.25 s, 2.25, 1.5 and 0.75 s after they came.
        assert pool.open == [False, True, True]
        await asyncio.sleep(0.375)
        assert pool.open == [False, True, True]
        await asyncio.sleep(0.25)
        assert pool.open == [False, False, True]
        await asyncio.sleep(5)
        assert pool.open == [False] * 3
        assert not len(pool.idle)
        # The timer has ended with them, and begins again.
        pool.idle.keep(pool.used())
        await asyncio.sleep(3)
        assert not any(pool.open)

    run(work())


def test_the_last_that_came_is_taken_first_so_that_the_others_end() -> None:
    async def work() -> None:
        pool = Pool()
        first, second = pool.used(), pool.used()
        pool.idle.keep(first)
        pool.idle.keep(second)
        assert [pool.idle.take(), pool.idle.take(), pool.idle.take()] == [second, first, None]
        pool.idle.close()

    run(work())


def test_no_more_wait_than_may() -> None:
    async def work() -> None:
        pool = Pool(most=2)
        for _ in range(4):
            pool.idle.keep(pool.used())
        assert pool.open == [True, True, False, False]
        pool.idle.close()
        assert not any(pool.open)
        pool.idle.keep(pool.used())
        assert not any(pool.open)

    run(work())


def test_a_whole_answer_whose_reply_does_not_end_is_not_waited_for_much_longer() -> None:
    async def work() -> None:
        pool = Pool(seconds=2.0)
        pool.idle.keep(pool.used(STREAM_HEAD + WHOLE))
        assert pool.idle.take() is None
        assert pool.open == [True]
        await asyncio.sleep(2.5)
        assert pool.open == [False]

    run(work())


@pytest.mark.parametrize("more", [LAST_CHUNK + b"x", LAST_CHUNK + STREAM_HEAD, WHOLE, b"no chunk\r\n"])
def test_surplus_bytes_close_a_connection_that_waits_for_the_end_of_a_reply(more: bytes) -> None:
    async def work() -> None:
        pool = Pool()
        one = pool.used(STREAM_HEAD + WHOLE)
        pool.idle.keep(one)
        one.data_received(more)
        assert pool.open == [False]
        pool.idle.close()

    run(work())


@pytest.mark.parametrize("whole", [False, True], ids=["the reply has ended", "its reader had it all"])
def test_surplus_bytes_close_a_connection_that_waits_for_a_stream(whole: bool) -> None:
    async def work() -> None:
        pool = Pool()
        one = pool.used(whole=whole)
        pool.idle.keep(one)
        assert pool.open == [True]
        one.data_received(b"x")
        assert pool.open == [False]
        pool.idle.close()

    run(work())


def test_the_end_of_a_reply_makes_a_connection_ready() -> None:
    async def work() -> None:
        pool = Pool()
        one = pool.used(STREAM_HEAD + WHOLE)
        pool.idle.keep(one)
        for byte in LAST_CHUNK:
            assert pool.idle.take() is None
            one.data_received(bytes([byte]))
        assert pool.idle.take() is one

    run(work())


def test_a_busy_connection_lives_no_longer_than_it_may() -> None:
    async def work() -> None:
        pool = Pool(seconds=2.0, life=5.0)
        one: Exchange | None = pool.used()
        for _ in range(5):
            assert one is not None
            pool.idle.keep(one)
            await asyncio.sleep(1)
            one = pool.idle.take()
        assert one is not None
        assert pool.open == [True]
        pool.idle.keep(one)
        assert pool.open == [False]

    run(work())


def test_a_connection_whose_request_is_not_all_sent_is_closed() -> None:
    async def work() -> None:
        pool = Pool()
        one = pool.used()
        pool.wires[0].unsent = 1
        pool.idle.keep(one)
        assert pool.open == [False]

    run(work())


@pytest.mark.parametrize("answer", [b"", STREAM_HEAD, STREAM_HEAD + WHOLE])
def test_what_is_left_before_the_answer_is_whole_is_closed(answer: bytes) -> None:
    async def work() -> None:
        pool = Pool()
        pool.idle.keep(pool.used(answer, whole=False))
        assert pool.open == [False]

    run(work())


def test_a_connection_that_is_being_closed_is_not_taken() -> None:
    async def work() -> None:
        pool = Pool()
        pool.idle.keep(pool.used())
        pool.wires[0].closed = True
        assert pool.idle.take() is None
        pool.idle.close()

    run(work())


@pytest.mark.parametrize(("seconds", "error"), [(0.5, UnheardError), (1.5, EngineError)])
def test_only_a_connection_that_ends_soon_had_not_heard_the_request(seconds: float, error: type[Exception]) -> None:
    async def work() -> None:
        pool = Pool()
        pool.idle.keep(pool.used())
        one = pool.idle.take()
        assert one is not None
        done = one.ask(b"x", EVENTS, lambda payloads: True)
        await asyncio.sleep(seconds)
        one.connection_lost(None)
        with pytest.raises(error):
            await done
        pool.idle.close()

    run(work())
