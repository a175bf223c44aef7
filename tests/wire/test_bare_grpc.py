"""What grpc.aio does without our guard: the reasons for it. A test that fails here says that grpc has changed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import pytest

from harness.byte_calls import unary_call
from harness.raw_http2 import raw_http2
from harness.waiting import until

METHOD = "/test.Bare/Method"
CANARY = "secret=/etc/passwd"


@asynccontextmanager
async def bare(make: Callable[..., Any], handler: Callable[..., Any], **options: int) -> AsyncIterator[int]:
    """Serves one handler without any of our code, and yields the port."""
    server = grpc.aio.server(options=list(options.items()))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Bare", {"Method": make(handler)})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@pytest.mark.asyncio
async def test_the_text_of_an_exception_reaches_the_client() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        raise ValueError(CANARY)

    async with (
        bare(grpc.unary_unary_rpc_method_handler, handler) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary_call(channel, METHOD)(b"")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert CANARY in (caught.value.details() or "")


@pytest.mark.asyncio
async def test_a_cancelled_inner_task_leaves_the_client_without_a_status() -> None:
    # https://github.com/grpc/grpc/issues/29248
    ended = asyncio.Event()

    async def handler(request: bytes, context: Any) -> bytes:
        asyncio.current_task().add_done_callback(lambda task: ended.set())  # type: ignore[union-attr]
        raise asyncio.CancelledError

    async with (
        bare(grpc.unary_unary_rpc_method_handler, handler) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = unary_call(channel, METHOD)(b"", timeout=1.0)
        await ended.wait()
        assert not call.done()
        # Its own deadline ends it, nothing else.
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.asyncio
async def test_a_request_that_is_not_protobuf_is_unknown_with_the_type_of_the_message() -> None:
    def parse(data: bytes) -> bytes:
        raise ValueError(CANARY)

    async def handler(request: bytes, context: Any) -> bytes:
        return b""

    def make(handler: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(handler, request_deserializer=parse)

    async with bare(make, handler) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary_call(channel, METHOD)(b"\xff")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


@pytest.mark.asyncio
async def test_a_generator_that_is_blocked_in_a_write_is_closed_in_another_context() -> None:
    # https://github.com/grpc/grpc/pull/42295
    variable: ContextVar[str] = ContextVar("variable", default="")
    closed: list[tuple[bool, str]] = []

    async def handler(request: bytes, context: Any) -> AsyncIterator[bytes]:
        token = variable.set(CANARY)
        task = asyncio.current_task()
        try:
            while True:
                yield bytes(16_384)
        finally:
            same = asyncio.current_task() is task
            try:
                variable.reset(token)
                closed.append((same, ""))
            except ValueError as error:
                closed.append((same, str(error)))

    async with bare(grpc.unary_stream_rpc_method_handler, handler) as port, raw_http2(port) as raw:
        stream = await raw.request(METHOD)
        await raw.exhausted(stream)
        await raw.reset(stream)
        await until(lambda: bool(closed), "the generator is closed")
    same_task, error = closed[0]
    assert not same_task
    assert "different Context" in error


@pytest.mark.asyncio
async def test_a_cancelled_call_looks_alive_to_its_handler() -> None:
    seen: list[tuple[bool, bool, int]] = []
    waiting = asyncio.Event()

    async def handler(request: bytes, context: Any) -> bytes:
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            seen.append((context.cancelled(), context.done(), task.cancelling()))
            raise
        return b""

    async with (
        bare(grpc.unary_unary_rpc_method_handler, handler) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = unary_call(channel, METHOD)(b"")
        await waiting.wait()
        call.cancel()
        await until(lambda: bool(seen), "the handler is cancelled")
    # Only `cancelling` tells it from the cancellation of some inner task.
    assert seen == [(False, False, 1)]


@pytest.mark.asyncio
async def test_trailers_set_before_an_abort_are_dropped() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("first", "1"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "", (("second", "2"),))
        return b""

    async with (
        bare(grpc.unary_unary_rpc_method_handler, handler) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary_call(channel, METHOD)(b"")
    assert dict(caught.value.trailing_metadata() or ()) == {"second": "2"}


# Calls that arrive faster than the event loop takes them (docs/decisions/0016).


async def _at_once(number: int, blocked_seconds: float = 0.0, **options: int) -> list[str]:
    """Makes so many calls at once, while the event loop is blocked for so long; returns their statuses."""

    async def handler(request: bytes, context: Any) -> bytes:
        return b""

    async with bare(grpc.unary_unary_rpc_method_handler, handler, **options) as port, raw_http2(port) as raw:
        streams = [await raw.request(METHOD, flush=False) for _ in range(number)]
        await raw.flush()
        # grpc's own threads take what has come, and it waits for us.
        time.sleep(blocked_seconds)  # noqa: ASYNC251 - as long as this takes nobody is asked for a call
        return [(await raw.answered(stream))["grpc-status"] for stream in streams]


@pytest.mark.asyncio
async def test_too_many_calls_that_nobody_has_taken_yet_end_as_cancelled() -> None:
    soft, hard = "grpc.server.max_pending_requests", "grpc.server.max_pending_requests_hard_limit"
    statuses = await _at_once(60, 0.5, **{soft: 20, hard: 20})
    assert statuses.count("0") + statuses.count("1") == 60
    # Some were taken at once; what fits in the queue is served in the end.
    assert 20 <= statuses.count("0") < 60
    # Between the two limits it is a matter of chance, and grpc's defaults are 1000 and 3000.
    some = await _at_once(60, 0.5, **{soft: 0, hard: 60})
    assert 0 < some.count("1") < 60
    assert set(await _at_once(60, 0.5)) == {"0"}


@pytest.mark.asyncio
async def test_calls_that_nobody_takes_for_long_end_as_cancelled() -> None:
    longest = "grpc.server_max_unrequested_time_in_server"
    assert (await _at_once(10, 1.3, **{longest: 1})).count("1") >= 8
    # By default it is 30 s.
    assert set(await _at_once(10, 1.3)) == {"0"}


@pytest.mark.asyncio
async def test_the_event_loop_goes_round_several_times_for_each_call_that_it_takes() -> None:
    # So few are taken where a turn is long, because many streams write in it.
    turns, taken = 0, []
    loop = asyncio.get_running_loop()

    async def handler(request: bytes, context: Any) -> bytes:
        taken.append(turns)
        return b""

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(taken) < 50:
            loop.call_soon(turn)

    async with bare(grpc.unary_unary_rpc_method_handler, handler) as port, raw_http2(port) as raw:
        for _ in range(50):
            stream = await raw.request(METHOD, flush=False)
        await raw.flush()
        loop.call_soon(turn)
        await raw.answered(stream)
        await until(lambda: len(taken) == 50, "all are taken")
    assert taken[-1] - taken[0] >= 3 * 49
