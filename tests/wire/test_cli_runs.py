"""`tokenwire runs`, `models` and `health`."""

import json

import pytest

from harness.command_line import begun, interrupt, outcome, tokenwire
from harness.service import Service, service
from tokenwire.engines.scripted import Pause, ScriptedEngine, words
from tokenwire.engines.status import EngineState
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RunOptions


async def finished(running: Service, request_id: str) -> str:
    """Runs a request to its end and returns the run's id."""
    run = RunOptions(request_id=request_id)
    return (await running.generate.Generate(GenerateRequest(prompt="hi", run=run))).run_id


def engine() -> ScriptedEngine:
    return ScriptedEngine(script=lambda job: words("one two three"))


@pytest.mark.asyncio
async def test_runs_are_listed_newest_first() -> None:
    async with service(engine()) as running:
        older, newer = await finished(running, "a"), await finished(running, "b")
        done = await tokenwire("runs", "ls", "--target", running.address)
        none = await tokenwire("runs", "ls", "--state", "failed", "--target", running.address)
        one = await tokenwire("runs", "ls", "--limit", "1", "--json", "--target", running.address)
    assert (done.code, done.err) == (0, "")
    assert [row[:5] for row in done.rows] == [
        [newer, "b", "finished", "scripted", "3"],
        [older, "a", "finished", "scripted", "3"],
    ]
    assert (none.code, none.out) == (0, "")
    assert [json.loads(line)["run_id"] for line in one.out.splitlines()] == [newer]


@pytest.mark.asyncio
async def test_a_run_is_shown_by_its_own_id_or_its_requests() -> None:
    async with service(engine()) as running:
        run_id = await finished(running, "run_odd")
        by_run = await tokenwire("runs", "show", run_id, "--target", running.address)
        wrong = await tokenwire("runs", "show", "run_odd", "--json", "--target", running.address)
        by_request = await tokenwire("runs", "show", "run_odd", "--by-request", "--json", "--target", running.address)
    shown = dict(by_run.rows)
    assert (shown["run"], shown["request"], shown["finish reason"]) == (run_id, "run_odd", "stop")
    assert (wrong.code, json.loads(wrong.out)["error"]["reason"]) == (2, "RUN_NOT_FOUND")
    assert json.loads(by_request.out)["run_id"] == run_id


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("after", "text"),
    [
        ([], "one two three"),
        (["--after", "3"], " two three"),
        (["--after", '{"seq":3,"ahead":[{"byte_offset":5}]}', "--buffer", "size:2"], "wo three"),
    ],
    ids=["start", "number", "cursor"],
)
async def test_a_run_is_read_from_a_cursor(after: list[str], text: str) -> None:
    async with service(engine()) as running:
        run_id = await finished(running, "a")
        done = await tokenwire("runs", "attach", run_id, *after, "--target", running.address)
    assert (done.code, done.out, done.err) == (0, text, "")


@pytest.mark.asyncio
async def test_a_wrong_cursor_is_wrong_usage() -> None:
    done = await tokenwire("runs", "attach", "run_1", "--after", "soon")
    assert (done.code, done.out) == (1, "")
    assert "--after" in done.err


@pytest.mark.asyncio
async def test_ctrl_c_leaves_a_run_that_was_attached_to() -> None:
    lasting = ScriptedEngine(script=lambda job: [words("lasting")[0], Pause(None)])
    async with service(lasting, orphan_grace_seconds=60.0) as running:
        stream = running.generate.StreamGenerate(GenerateRequest(prompt="hi", run=RunOptions(request_id="a")))
        await stream.read()
        async with begun("runs", "attach", "a", "--target", running.address) as process:
            assert process.stdout is not None
            assert await process.stdout.readexactly(7) == b"lasting"
            await interrupt(process)
            done = await outcome(process)
        [run] = running.app.runs.list("local")
        assert run.end is None
        assert (done.code, "tokenwire runs cancel a" in done.err) == (130, True)
        ended = await tokenwire("runs", "cancel", "a", "--target", running.address)
        stream.cancel()
        assert (ended.code, ended.err) == (0, "")
        assert run.end is not None
    assert dict(ended.rows)["finish reason"] == "cancelled"
    assert lasting.stopped == 1


@pytest.mark.asyncio
async def test_models_are_tab_separated_or_json() -> None:
    async with service() as running:
        piped = await tokenwire("models", "--target", running.address)
        as_json = await tokenwire("models", "--json", "--target", running.address)
    assert piped.rows == [["scripted", "default", "ready", "4096", "scripted (scripted)"]]
    model = json.loads(as_json.out)
    assert (model["name"], model["is_default"]) == ("scripted", True)


@pytest.mark.asyncio
async def test_health_tells_of_each_service_and_engine() -> None:
    async with service() as running:
        done = await tokenwire("health", "--target", running.address)
    assert done.code == 0
    states = dict(done.rows)
    assert set(states.values()) == {"SERVING"}
    assert {"(process)", "tokenwire.v1.GenerateService", "tokenwire.v1.RunService", "engine:scripted"} <= set(states)


@pytest.mark.asyncio
async def test_health_fails_when_no_engine_answers() -> None:
    lost = ScriptedEngine()
    lost.status.set(EngineState.UNAVAILABLE)
    async with service(lost) as running:
        done = await tokenwire("health", "--json", "--target", running.address)
        engines = await tokenwire("health", "engine:scripted", "--target", running.address)
        server = await tokenwire("health", "tokenwire.v1.RunService", "--target", running.address)
    told = json.loads(done.out)
    assert (done.code, told["serving"]) == (2, False)
    assert told["states"]["tokenwire.v1.GenerateService"] == "NOT_SERVING"
    assert (engines.code, engines.rows) == (2, [["engine:scripted", "NOT_SERVING"]])
    assert server.code == 0
