"""Traces cross processes: in from the client, out to the engine, and over a resume and a restart by links."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from harness.leaving import leaving
from harness.reading import text_of
from harness.refusals import read_to_refusal
from harness.seen import id_of, linked, parent_of, said, seen, tree
from harness.service import service
from harness.waiting import until
from tokenwire.app import SYSTEM_CLOCK
from tokenwire.domain.generation import Job
from tokenwire.engines.openai.adapter import OpenAIEngine
from tokenwire.engines.scripted import Pause, ScriptedEngine, Step, words
from tokenwire.engines.status import EngineState
from tokenwire.telemetry.propagation import traceparent
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, WaitRunRequest

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "vendor=word"
MARKER = "zebra-marker"


def ask(prompt: str = "hi", **run: Any) -> GenerateRequest:
    return GenerateRequest(prompt=prompt, run=RunOptions(**run))


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["attach", "wait", "submit"])
async def test_whoever_joins_a_run_is_linked_to_it(how: str) -> None:
    with seen() as watched:
        async with service(ScriptedEngine()) as running:
            first = [event async for event in running.generate.StreamGenerate(ask(request_id="r"))]
            (run,) = watched.named("run ")
            watched.exporter.clear()
            if how == "attach":
                await text_of(running.runs.AttachRun(AttachRunRequest(request_id="r", after=Cursor(seq=3))))
            elif how == "wait":
                await running.runs.WaitRun(WaitRunRequest(request_id="r"))
            else:
                await running.generate.Generate(ask(request_id="r"))
            (call,) = await watched.ended(1)
    assert linked(call) == [id_of(run)]
    assert said(call)["tokenwire.run.id"] == first[0].start.run_id
    assert said(call)["tokenwire.resume.kind"] == how
    assert said(call).get("tokenwire.resume.seq") == (3 if how == "attach" else None)


@pytest.mark.asyncio
async def test_a_trace_comes_in_from_the_client_and_goes_out_to_the_engine() -> None:
    jobs: list[Job] = []

    def script(job: Job) -> Sequence[Step]:
        jobs.append(job)
        return words("done")

    metadata = (("traceparent", PARENT), ("tracestate", STATE), ("baggage", f"word={MARKER}"))
    with seen() as watched:
        async with service(ScriptedEngine(script=script)) as running:
            await text_of(running.generate.StreamGenerate(ask(), metadata=metadata))
            call, _, (attempt,) = await tree(watched, 3)
    assert parent_of(call) == int(PARENT.split("-")[2], 16)
    assert call.context is not None
    assert f"{call.context.trace_id:032x}" == PARENT.split("-")[1]
    assert jobs[0].headers == {
        "traceparent": f"00-{call.context.trace_id:032x}-{id_of(attempt):016x}-01",
        "tracestate": STATE,
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["unsampled", "off"])
async def test_a_trace_goes_through_a_server_that_records_nothing(state: str) -> None:
    jobs: list[Job] = []

    def script(job: Job) -> Sequence[Step]:
        jobs.append(job)
        return words("done")

    async def through() -> None:
        async with service(ScriptedEngine(script=script)) as running:
            await text_of(running.generate.StreamGenerate(ask(), metadata=(("traceparent", PARENT),)))
            await text_of(running.generate.StreamGenerate(ask(), metadata=(("traceparent", "00-nonsense-01"),)))

    if state == "off":
        await through()
        assert [job.headers for job in jobs] == [{"traceparent": PARENT}, {}]
        return
    with seen(ALWAYS_OFF) as watched:
        await through()
        assert not watched.spans
    version, trace_id, span_id, flags = jobs[0].headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", PARENT.split("-")[1], "00")
    assert span_id != PARENT.split("-")[2]


@asynccontextmanager
async def stand_in(requests: list[web.Request]) -> AsyncIterator[str]:
    """Serves an OpenAI-like engine that says one word, keeps the requests, and yields its address."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def complete(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        await request.read()
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b'data: {"choices":[{"index":0,"text":"word","finish_reason":null}]}\n\n')
        await answer.write(b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        return answer

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.asyncio
async def test_an_engine_behind_http_is_a_client_span_whose_place_it_is_told_and_nobody_its_address_or_key() -> None:
    requests: list[web.Request] = []
    with seen() as watched:
        async with stand_in(requests) as url:
            engine = OpenAIEngine(name="far", url=url, clock=SYSTEM_CLOCK, api_key=f"key-{MARKER}")
            async with service(engine) as running:
                await until(lambda: engine.status.state is EngineState.READY, "the engine is ready")
                await text_of(running.generate.StreamGenerate(ask(MARKER)))
                _, _, (attempt,) = await tree(watched, 3)
                measured = str(watched.measured())
    told = requests[0].headers
    assert told["authorization"].endswith(MARKER)
    assert attempt.context is not None
    assert told["traceparent"] == traceparent(attempt.context)
    assert "baggage" not in told
    assert (attempt.kind, attempt.name) == (SpanKind.CLIENT, "text_completion tiny")
    everything = "".join(span.to_json() for span in watched.spans) + measured
    assert MARKER not in everything
    assert url.removeprefix("http://") not in everything
    assert "127.0.0.1" not in everything
    assert "word" not in everything


@pytest.mark.asyncio
async def test_a_run_that_goes_on_after_a_restart_is_linked_to_what_it_was(tmp_path: Path) -> None:
    journal = f"file:{tmp_path / 'journal'}"
    asked = ask(request_id="r", detached=True)
    with seen() as watched:
        engine = ScriptedEngine("a", script=lambda job: [*words("the first half")[:-1], Pause(None)])
        async with leaving(engine, journal=journal, drain_seconds=0.0) as server:
            stream = asyncio.create_task(read_to_refusal(server.service.generate.StreamGenerate(asked)))
            runs = server.service.app.runs
            await until(lambda: any(run.log.head > 4 for run in runs.list("local")), "it writes")
            server.leave.set()
            await stream
        (before,) = watched.named("run ")
        assert said(before)["tokenwire.run.outcome"] == "handed_over"
        watched.exporter.clear()
        async with service(ScriptedEngine("a", script=lambda job: words(" and the rest")), journal=journal) as running:
            await text_of(running.runs.AttachRun(AttachRunRequest(request_id="r")))
            await until(lambda: len(watched.spans) == 3, "three spans")
        (pause,) = watched.points("tokenwire.reader.pause")
    (run,), (attempt,), (call,) = watched.named("run "), watched.named("text_"), watched.named("tokenwire")
    assert linked(run) == [id_of(before)]
    assert run.parent is None
    assert said(run)["tokenwire.run.taken_over"] is True
    assert said(run)["tokenwire.run.outcome"] == "completed"
    assert (parent_of(attempt), said(attempt)["tokenwire.attempt"]) == (id_of(run), 2)
    assert linked(call) == [id_of(run)]
    assert pause.attributes["tokenwire.pause.cause"] == "takeover"


@pytest.mark.asyncio
async def test_a_run_that_ended_before_a_restart_is_linked_to_by_those_who_read_it(tmp_path: Path) -> None:
    journal = f"file:{tmp_path / 'journal'}"
    with seen() as watched:
        async with service(ScriptedEngine(), journal=journal) as running:
            await text_of(running.generate.StreamGenerate(ask(request_id="r")))
        (run,) = watched.named("run ")
        watched.exporter.clear()
        async with service(ScriptedEngine(), journal=journal) as running:
            await text_of(running.runs.AttachRun(AttachRunRequest(request_id="r")))
            (call,) = await watched.ended(1)
    assert linked(call) == [id_of(run)]
