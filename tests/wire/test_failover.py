"""A client sees one whole stream, whatever becomes of the engines behind it."""

import asyncio
from typing import Any

import grpc
import pytest

from harness.refusals import read_to_refusal, refused
from harness.service import service
from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.scripted import Fail, ScriptedEngine
from tokenwire.engines.status import EngineState
from tokenwire.engines.toy_model import ToyModel
from tokenwire.v1.event_pb2 import CONTINUATION_BY_TEXT, CONTINUATION_BY_TOKENS, CONTINUATION_FIRST, Event
from tokenwire.v1.finish_pb2 import FINISH_REASON_LENGTH
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import FAILOVER_POLICY_BEFORE_FIRST_TOKEN, RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, GetRunRequest
from tokenwire.v1.sampling_pb2 import Sampling, Stopping
from tokenwire.v1.server_service_pb2 import GetServerInfoRequest

TOKENS = 40
LOST = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is gone", retryable=True)


def request(n: int = 1, **run: Any) -> GenerateRequest:
    return GenerateRequest(
        prompt="Tell me more.",
        sampling=Sampling(n=n) if n > 1 else None,
        stopping=Stopping(max_tokens=TOKENS),
        run=RunOptions(**run),
    )


async def events(call: Any) -> list[Event]:
    return [event async for event in call]


def texts(told: list[Event], n: int = 1) -> list[str]:
    """Joins the texts, and checks that there is neither a hole nor a duplicate."""
    joined = [b""] * n
    tokens = [0] * n
    for event in told:
        if event.HasField("delta"):
            choice = event.delta.choice
            assert event.delta.byte_offset == len(joined[choice])
            assert event.delta.token_offset == tokens[choice]
            joined[choice] += event.delta.text.encode()
            tokens[choice] += event.delta.token_count
    return [one.decode() for one in joined]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("shift", "how"), [(0, CONTINUATION_BY_TOKENS), (1000, CONTINUATION_BY_TEXT)])
@pytest.mark.asyncio
async def test_a_stream_whose_engine_dies_goes_on_without_a_hole(n: int, shift: int, how: int) -> None:
    toy, other = ToyModel(), ToyModel(shift=shift)
    async with service(toy.engine("a")) as running:
        unbroken = await events(running.generate.StreamGenerate(request(n)))
    async with service(toy.engine("a", die_after=[25]), other.engine("b")) as running:
        told = await events(running.generate.StreamGenerate(request(n, request_id="r")))
        run = await running.runs.GetRun(GetRunRequest(request_id="r"))
        again = await events(running.runs.AttachRun(AttachRunRequest(request_id="r")))
        info = await running.server.GetServerInfo(GetServerInfoRequest())
    assert texts(told, n) == texts(again, n) == texts(unbroken, n)
    chosen = [event.dispatched for event in told if event.HasField("dispatched")]
    dispatched = [(one.engine, one.attempt, one.continuation) for one in chosen]
    assert dispatched == [("a", 1, CONTINUATION_FIRST), ("b", 2, how)]
    assert run.engine == "b"
    end = told[-1].end
    assert [one.finish_reason for one in end.choices] == [FINISH_REASON_LENGTH] * n
    assert (end.usage, end.channels) == (unbroken[-1].end.usage, unbroken[-1].end.channels)
    assert {"failover.before_first_token", "failover.continue"} <= set(info.features)


@pytest.mark.asyncio
async def test_a_unary_call_and_its_wait_do_not_notice() -> None:
    toy = ToyModel()
    async with service(toy.engine("a")) as running:
        whole = await running.generate.Generate(request())
    async with service(toy.engine("a", die_after=[0, 20]), toy.engine("b", die_after=[10])) as running:
        broken = await running.generate.Generate(request())
    assert broken.choices == whole.choices
    assert broken.usage == whole.usage


@pytest.mark.asyncio
async def test_what_may_not_go_on_ends_with_its_error_its_text_and_its_cursor() -> None:
    toy = ToyModel()
    async with service(toy.engine("a", die_after=[20]), toy.engine("b")) as running:
        call = running.generate.StreamGenerate(request(failover=FAILOVER_POLICY_BEFORE_FIRST_TOKEN))
        told, refusal = await read_to_refusal(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "ENGINE_LOST")
    assert refusal.metadata["continuation_refused"] == "run.failover"
    assert refusal.metadata["cursor"]
    assert texts(told)[0]
    assert told[-1].end.error.reason == "ENGINE_LOST"


@pytest.mark.asyncio
async def test_while_all_engines_fail_requests_are_refused_fast_and_soon_after_the_fault_they_succeed() -> None:
    broken = [True]
    toy = ToyModel()

    def script(job: Any) -> Any:
        return [Fail(LOST)] if broken[0] else toy.steps(job)

    engine = ScriptedEngine("a", script=script)
    async with service(engine, failover="none") as running:
        for _ in range(5):
            await refused(running.generate.Generate(GenerateRequest(prompt="hi")))
        told = await refused(running.generate.Generate(GenerateRequest(prompt="hi")))
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "BREAKER_OPEN")
        assert told.retry_seconds is not None
        assert 0 < told.retry_seconds <= 4
        assert engine.started == 5
        broken[0] = False
        # As a client does.
        await asyncio.sleep(told.retry_seconds)
        assert (await running.generate.Generate(GenerateRequest(prompt="hi"))).choices[0].text
        engine.status.set(EngineState.UNAVAILABLE)
        told = await refused(running.generate.Generate(GenerateRequest(prompt="hi")))
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_UNREACHABLE")
        engine.status.set(EngineState.READY)
        assert (await running.generate.Generate(GenerateRequest(prompt="hi"))).choices[0].text
