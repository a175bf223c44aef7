"""Whatever a handler does, its client gets a status at once, and nothing that it must not see."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from harness.endpoints import MESSAGE_MAX_BYTES, odd
from harness.refusals import read_to_refusal, refused
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import Call
from tokenwire.v1.server_service_pb2 import ServerInfo

CANARY = "secret=/etc/passwd"
# Long enough for a slow machine; a call that ends only by this has hung.
TIMEOUT = 20.0

Broken = Callable[[], Awaitable[Any]]


async def _raises_value_error() -> None:
    raise ValueError(CANARY)


async def _upstream_fails() -> None:
    raise grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details=CANARY,
        debug_error_string=CANARY,
    )


async def _upstream_takes_too_long() -> None:
    raise TimeoutError(CANARY)


async def _raises_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_raises_value_error())


async def _raises_a_nested_group() -> None:
    raise ExceptionGroup(CANARY, [ExceptionGroup(CANARY, [ValueError(CANARY)])])


async def _inner_task_is_cancelled() -> None:
    inner = asyncio.create_task(asyncio.Event().wait(), name=CANARY)
    inner.cancel(CANARY)
    await inner


async def _raises_stop_iteration() -> None:
    raise StopAsyncIteration(CANARY)


BROKEN: list[Broken] = [
    _raises_value_error,
    _upstream_fails,
    _upstream_takes_too_long,
    _raises_a_group,
    _raises_a_nested_group,
    _inner_task_is_cancelled,
    _raises_stop_iteration,
]


@pytest.mark.asyncio
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_bug_in_a_handler_is_internal_with_the_rpc_id_and_nothing_else(broken: Broken) -> None:
    async def handler(request: Any, call: Call) -> None:
        await broken()

    async with odd(unary=handler, stream=handler) as running:
        answers = [await refused(running.unary(timeout=TIMEOUT))]
        messages, answer = await read_to_refusal(running.stream(timeout=TIMEOUT))
    answers.append(answer)
    assert messages == []
    for number, answer in enumerate(answers):
        assert answer.code is grpc.StatusCode.INTERNAL
        assert answer.message == f"internal error, rpc id rpc-{number}"
        assert answer.rpc_id == f"rpc-{number}"
        assert answer.reason is None
        assert CANARY not in repr(answer)


@pytest.mark.asyncio
@pytest.mark.parametrize("broken", BROKEN)
async def test_messages_before_a_bug_arrive_and_the_status_follows_them(broken: Broken) -> None:
    async def handler(request: Any, call: Call) -> None:
        for number in range(3):
            await call.write(ServerInfo(api_revision=number))
        await broken()

    async with odd(stream=handler) as running:
        messages, answer = await read_to_refusal(running.stream(timeout=TIMEOUT))
    assert [message.api_revision for message in messages] == [0, 1, 2]
    assert answer.code is grpc.StatusCode.INTERNAL
    assert CANARY not in repr(answer)


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [None, CANARY, 7, [CANARY], object()])
async def test_a_unary_handler_that_answers_with_no_message_is_internal(answer: Any) -> None:
    async def handler(request: Any, call: Call) -> Any:
        return answer

    async with odd(unary=handler) as running:
        told = await refused(running.unary(timeout=TIMEOUT))
    assert told.code is grpc.StatusCode.INTERNAL
    assert told.message == "internal error, rpc id rpc-0"
    assert told.rpc_id == "rpc-0"


@pytest.mark.asyncio
async def test_a_streaming_handler_that_writes_no_message_is_internal() -> None:
    async def handler(request: Any, call: Call) -> None:
        await call.write(CANARY)

    async with odd(stream=handler) as running:
        messages, told = await read_to_refusal(running.stream(timeout=TIMEOUT))
    assert messages == []
    assert told.code is grpc.StatusCode.INTERNAL
    assert CANARY not in repr(told)


@pytest.mark.asyncio
async def test_an_expected_error_inside_a_group_is_told_as_itself() -> None:
    expected = TokenwireError(Code.NOT_FOUND, "RUN_NOT_FOUND", "the run does not exist", resource=("run", "one"))

    async def fails() -> None:
        raise expected

    async def handler(request: Any, call: Call) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.Event().wait()

    async with odd(unary=handler, stream=handler) as running:
        answers = [await refused(running.unary(timeout=TIMEOUT))]
        answers.append((await read_to_refusal(running.stream(timeout=TIMEOUT)))[1])
    for answer in answers:
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        assert answer.resource == ("run", "one")


@pytest.mark.asyncio
async def test_a_server_goes_on_after_bugs() -> None:
    failing = True

    async def handler(request: Any, call: Call) -> ServerInfo:
        if failing:
            raise ValueError(CANARY)
        return ServerInfo(version="well")

    async with odd(unary=handler) as running:
        await refused(running.unary(timeout=TIMEOUT))
        failing = False
        answer = await running.unary(timeout=TIMEOUT)
    assert answer.version == "well"


@pytest.mark.asyncio
async def test_an_answer_too_large_to_be_sent_is_an_error_of_ours() -> None:
    answer = ServerInfo(version="x" * MESSAGE_MAX_BYTES)

    async def unary(request: Any, call: Call) -> ServerInfo:
        return answer

    async def stream(request: Any, call: Call) -> None:
        await call.write(answer)

    async with odd(unary=unary, stream=stream) as running:
        answers = [await refused(running.unary(timeout=TIMEOUT))]
        answers.append((await read_to_refusal(running.stream(timeout=TIMEOUT)))[1])
    for told in answers:
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
        assert told.metadata["limit"] == str(MESSAGE_MAX_BYTES)


@pytest.mark.asyncio
async def test_the_longest_error_there_can_be_reaches_the_client() -> None:
    # Four bytes a character, and twelve once they are percent-encoded.
    async def handler(request: Any, call: Call) -> None:
        raise TokenwireError(
            Code.NOT_FOUND,
            "MODEL_NOT_FOUND",
            "🌊" * 2000,
            resource=("model", "🌊" * 500),
            metadata={"names": "x" * 2000},
        )

    async with odd(unary=handler) as running:
        # Above its soft limit a client refuses trailers at random: many times.
        answers = [await refused(running.unary(timeout=TIMEOUT)) for _ in range(50)]
    assert {answer.code for answer in answers} == {grpc.StatusCode.NOT_FOUND}
    assert {answer.reason for answer in answers} == {"MODEL_NOT_FOUND"}
