"""What is counted and measured of calls, runs and attempts, under names and labels of which there are few."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest

from harness.reading import next_event, text_of
from harness.refusals import read_to_refusal, refused
from harness.seen import Point, Seen, seen
from harness.service import service
from harness.waiting import until
from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.scripted import Fail, Pause, ScriptedEngine, WaitFor, words
from tokenwire.engines.toy_model import ToyModel
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest, GetRunRequest
from tokenwire.v1.sampling_pb2 import Stopping

LOST = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is gone", retryable=True)
STREAM = "tokenwire.v1.GenerateService/StreamGenerate"
RUN = {
    "gen_ai.operation.name": "text_completion",
    "gen_ai.provider.name": "tokenwire",
    "gen_ai.request.model": "scripted",
}
ATTEMPT = RUN | {"gen_ai.provider.name": "scripted", "tokenwire.engine.name": "a"}
# What there is without anybody who calls.
STATES = {
    "tokenwire.engine.state",
    "tokenwire.engine.choices",
    "tokenwire.engine.silence",
    "tokenwire.breaker.state",
    "tokenwire.breaker.openings",
    "tokenwire.readers.open",
    "tokenwire.readers.behind",
    "tokenwire.journal.bytes",
}


def ask(prompt: str = "hi", tokens: int = 5, **run: Any) -> GenerateRequest:
    return GenerateRequest(prompt=prompt, stopping=Stopping(max_tokens=tokens), run=RunOptions(**run))


def one(measured: Mapping[str, list[Point]], name: str) -> Point:
    """Returns the one series of an instrument."""
    (point,) = measured[name]
    return point


def by(points: list[Point], label: str) -> dict[str, Any]:
    """Returns the value of each series, by one of its labels."""
    return {point.attributes[label]: point.value for point in points}


async def after(watched: Seen, calls: int) -> Mapping[str, list[Point]]:
    """Waits for so many calls to end, and collects."""
    await until(lambda: len(watched.lines) >= calls, f"{calls} calls")
    return watched.measured()


@pytest.mark.asyncio
async def test_one_stream_is_measured_once_by_each_instrument() -> None:
    with seen() as watched:
        async with service(ScriptedEngine("a")) as running:
            await text_of(running.generate.StreamGenerate(ask("12345678", tokens=20)))
            measured = await after(watched, 1)
    told = {name: one(measured, name) for name in measured if name.startswith(("gen_ai.server", "rpc", "tokenwire.q"))}
    assert {name: (point.count, dict(point.attributes)) for name, point in told.items()} == {
        "rpc.server.call.duration": (
            1,
            {"rpc.system.name": "grpc", "rpc.method": STREAM, "rpc.response.status_code": "OK"},
        ),
        "gen_ai.server.request.duration": (1, RUN),
        "gen_ai.server.time_to_first_token": (1, RUN),
        "gen_ai.server.time_per_output_token": (1, RUN),
        "tokenwire.queue.wait": (1, {"gen_ai.request.model": "scripted", "tokenwire.queue.outcome": "seated"}),
    }
    assert told["gen_ai.server.time_to_first_token"].sum <= told["gen_ai.server.request.duration"].sum
    client = {name: measured[name] for name in measured if name.startswith("gen_ai.client")}
    assert {name: [dict(point.attributes) for point in points] for name, points in client.items()} == {
        "gen_ai.client.operation.duration": [ATTEMPT | {"tokenwire.attempt.outcome": "completed"}],
        "gen_ai.client.operation.time_to_first_chunk": [ATTEMPT],
        "gen_ai.client.operation.time_per_output_chunk": [ATTEMPT],
        "gen_ai.client.token.usage": [ATTEMPT | {"gen_ai.token.type": kind} for kind in ("input", "output")],
    }
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in client["gen_ai.client.token.usage"]}
    assert tokens == {"input": 8, "output": 20}
    own = set(measured) - set(told) - set(client) - {"tokenwire.runs.active", "tokenwire.admission.decisions"}
    assert own == STATES


@pytest.mark.asyncio
async def test_buckets_are_those_of_the_conventions() -> None:
    with seen() as watched:
        async with service(ScriptedEngine("a")) as running:
            await text_of(running.generate.StreamGenerate(ask()))
            measured = await after(watched, 1)
    bounds = {name: list(points[0].explicit_bounds) for name, points in measured.items() if "gen_ai" in name}
    first = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
    assert bounds["gen_ai.server.time_to_first_token"] == first
    per = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
    assert bounds["gen_ai.server.time_per_output_token"] == per
    assert bounds["gen_ai.server.request.duration"] == [0.01 * 2**power for power in range(14)]
    assert bounds["gen_ai.client.token.usage"] == [4**power for power in range(14)]


@pytest.mark.asyncio
async def test_the_latest_names_come_in_the_place_of_the_others_for_those_who_opt_in() -> None:
    with seen() as watched:
        async with service(ScriptedEngine("a"), semconv_opt_in=True) as running:
            await text_of(running.generate.StreamGenerate(ask("1234", tokens=7)))
            measured = await after(watched, 1)
    assert {name for name in measured if name.startswith("gen_ai.client")} == {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.time_per_output_chunk",
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
        "gen_ai.client.inference.operation.input_tokens",
        "gen_ai.client.inference.operation.output_tokens",
    }
    read, written = (one(measured, f"gen_ai.client.inference.usage.{kind}_tokens") for kind in ("input", "output"))
    assert (read.value, written.value) == (4, 7)
    assert written.attributes == ATTEMPT | {"gen_ai.token.modality": "text"}
    assert one(measured, "gen_ai.client.inference.operation.output_tokens").sum == 7
    assert "gen_ai.server.request.duration" in measured


@pytest.mark.asyncio
async def test_a_failure_is_told_by_its_reason_and_makes_nothing_look_fast() -> None:
    engine = ScriptedEngine("a", script=lambda job: [*words("one two")[:-1], Fail(LOST)])
    with seen() as watched:
        async with service(engine, failover="none") as running:
            await read_to_refusal(running.generate.StreamGenerate(ask()))
            measured = await after(watched, 1)
    assert one(measured, "gen_ai.server.request.duration").attributes == RUN | {"error.type": "ENGINE_LOST"}
    assert one(measured, "gen_ai.client.operation.duration").attributes == ATTEMPT | {
        "tokenwire.attempt.outcome": "failed",
        "error.type": "ENGINE_LOST",
    }
    assert one(measured, "rpc.server.call.duration").attributes["error.type"] == "ENGINE_LOST"
    assert not {"gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token"} & set(measured)


@pytest.mark.asyncio
async def test_a_cancelled_run_is_no_failure_and_makes_nothing_look_fast() -> None:
    engine = ScriptedEngine("a", script=lambda job: [*words("one two")[:-1], Pause(None)])
    with seen() as watched:
        async with service(engine) as running:
            stream = running.generate.StreamGenerate(ask(request_id="r"))
            await next_event(stream)
            await running.runs.CancelRun(CancelRunRequest(request_id="r"))
            measured = await after(watched, 2)
            stream.cancel()
    assert one(measured, "gen_ai.server.request.duration").attributes == RUN
    stopped = ATTEMPT | {"tokenwire.attempt.outcome": "stopped"}
    assert one(measured, "gen_ai.client.operation.duration").attributes == stopped
    assert "gen_ai.server.time_to_first_token" not in measured


@pytest.mark.asyncio
async def test_a_failover_is_counted_and_the_pause_that_readers_saw_is_measured() -> None:
    toy = ToyModel()
    with seen() as watched:
        async with service(toy.engine("a", die_after=[20]), toy.engine("b")) as running:
            await text_of(running.generate.StreamGenerate(ask("Tell me.", tokens=60)))
            measured = await after(watched, 1)
    failover = one(measured, "tokenwire.failovers")
    assert (failover.value, failover.attributes) == (
        1,
        {"tokenwire.continuation": "by_tokens", "tokenwire.engine.name": "b"},
    )
    pause = one(measured, "tokenwire.reader.pause")
    assert (pause.count, pause.attributes) == (
        1,
        {"tokenwire.continuation": "by_tokens", "tokenwire.pause.cause": "engine"},
    )
    # Each engine is credited with its own part.
    usage = measured["gen_ai.client.token.usage"]
    written = {
        point.attributes["tokenwire.engine.name"]: point.sum
        for point in usage
        if point.attributes["gen_ai.token.type"] == "output"
    }
    assert written == {"a": 20, "b": 40}


@pytest.mark.asyncio
async def test_resumes_are_counted_by_their_kind() -> None:
    with seen() as watched:
        async with service(ScriptedEngine("a")) as running:
            for _ in range(3):
                await text_of(running.generate.StreamGenerate(ask(request_id="r")))
            await text_of(running.runs.AttachRun(AttachRunRequest(request_id="r")))
            await running.runs.GetRun(GetRunRequest(request_id="r"))
            measured = await after(watched, 5)
    assert by(measured["tokenwire.resumes"], "tokenwire.resume.kind") == {"submit": 2, "attach": 1}


@pytest.mark.asyncio
async def test_what_is_under_way_is_seen_while_it_is() -> None:
    leave = asyncio.Event()
    engine = ScriptedEngine("a", slots=1, script=lambda job: [*words("one")[:-1], WaitFor(leave), *words(" two")])
    with seen() as watched:
        async with service(engine) as running:
            first = running.generate.StreamGenerate(ask())
            await until(lambda: engine.started == 1, "the first one is written")
            second = running.generate.StreamGenerate(ask())
            await until(lambda: running.app.fleet.places.waiting == 1, "the second one waits")
            measured = watched.measured()
            assert by(measured["tokenwire.runs.active"], "tokenwire.run.state") == {"queued": 1, "running": 1}
            assert by(measured["tokenwire.engine.choices"], "tokenwire.engine.name") == {"a": 1}
            assert one(measured, "tokenwire.readers.open").value == 2
            assert one(measured, "tokenwire.readers.behind").value == 0
            assert one(measured, "tokenwire.journal.bytes").value == running.app.journal.held > 0
            leave.set()
            await asyncio.gather(text_of(first), text_of(second))
            measured = await after(watched, 2)
            assert by(measured["tokenwire.runs.active"], "tokenwire.run.state") == {"queued": 0, "running": 0}
            assert one(measured, "tokenwire.readers.open").value == 0
            assert by(measured["tokenwire.engine.silence"], "tokenwire.engine.name") == {"a": 0}
    assert one(measured, "tokenwire.queue.wait").count == 2


@pytest.mark.asyncio
async def test_a_breaker_that_opens_is_seen() -> None:
    engine = ScriptedEngine("a", script=lambda job: [Fail(LOST)])
    with seen() as watched:
        async with service(engine, failover="none") as running:
            states = by(watched.points("tokenwire.breaker.state"), "tokenwire.breaker.state")
            assert states == {"closed": 1, "open": 0, "half_open": 0}
            for _ in range(5):
                await refused(running.generate.Generate(ask()))
            measured = await after(watched, 5)
    assert by(measured["tokenwire.breaker.state"], "tokenwire.breaker.state") == {
        "closed": 0,
        "open": 1,
        "half_open": 0,
    }
    assert by(measured["tokenwire.breaker.openings"], "tokenwire.engine.name") == {"a": 1}
    assert by(measured["tokenwire.engine.state"], "tokenwire.engine.state")["ready"] == 1


@pytest.mark.asyncio
async def test_what_admission_decides_is_counted() -> None:
    with seen() as watched:
        async with service(ScriptedEngine("a", script=lambda job: [Pause(None)]), streams_max=1) as running:
            held = running.generate.StreamGenerate(ask())
            await next_event(held)
            await read_to_refusal(running.generate.StreamGenerate(ask()))
            points = watched.points("tokenwire.admission.decisions")
            held.cancel()
    assert {(point.attributes["tokenwire.limiter"], point.attributes["tokenwire.decision"]) for point in points} == {
        ("streams", "admitted"),
        ("streams", "refused"),
    }


@pytest.mark.asyncio
async def test_nobody_can_make_series_without_end() -> None:
    rng = random.Random(1)
    with seen() as watched:
        async with service(ScriptedEngine("a")) as running:

            async def calls(number: int) -> None:
                odd = f"odd-{rng.getrandbits(64):x}"
                await running.generate.Generate(ask(odd, tokens=2, request_id=odd, labels={odd: odd}))
                await refused(running.generate.Generate(GenerateRequest(prompt=odd, model=odd)))
                await refused(running.runs.GetRun(GetRunRequest(run_id=odd)))

            await calls(0)
            before = {name: len(points) for name, points in (await after(watched, 3)).items()}
            await asyncio.gather(*(calls(number) for number in range(300)))
            measured = await after(watched, 903)
    assert {name: len(points) for name, points in measured.items()} == before
    assert "odd" not in str(measured)
