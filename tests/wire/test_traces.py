"""A call, its run, and each attempt at an engine are spans that hang together, however it all ends."""

import asyncio
from typing import Any

import grpc
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from harness.batching import Talk
from harness.byte_calls import unary_call
from harness.reading import next_event, text_of
from harness.refusals import read_to_refusal, refused
from harness.seen import id_of, linked, parent_of, said, seen, tree
from harness.service import Service, service
from harness.waiting import until
from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.scripted import Fail, Pause, ScriptedEngine, WaitFor, words
from tokenwire.engines.toy_model import ToyModel
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import Message
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import CancelRunRequest
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

LOST = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is gone", retryable=True)
MARKER = "zebra-marker"
GENERATE = "tokenwire.v1.GenerateService/Generate"


def ask(prompt: str = "hi", **run: Any) -> GenerateRequest:
    return GenerateRequest(prompt=prompt, run=RunOptions(**run))


@pytest.mark.asyncio
async def test_a_stream_is_three_spans_that_tell_what_was_asked_and_what_came() -> None:
    asked = GenerateRequest(
        prompt=MARKER,
        sampling=Sampling(temperature=0.5, seed=7),
        stopping=Stopping(max_tokens=5),
        run=RunOptions(request_id="mine"),
    )
    with seen() as watched:
        async with service(ScriptedEngine("a")) as running:
            events = [event async for event in running.generate.StreamGenerate(asked)]
            call, run, (attempt,) = await tree(watched, 3)
    run_id = events[0].start.run_id
    assert (call.kind, run.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.INTERNAL)
    assert {span.status.status_code for span in (call, run, attempt)} == {StatusCode.UNSET}
    assert (run.name, attempt.name) == ("run scripted", "text_completion scripted")
    assert said(call)["rpc.response.status_code"] == "OK"
    told = said(run)
    # In seconds what the end tells in whole milliseconds, of which a scripted engine may need none.
    timings = events[-1].end.timings
    assert told.pop("tokenwire.run.time_to_first_token") == timings.time_to_first_token_ms / 1000
    per_token = pytest.approx(timings.mean_time_between_tokens_ms / 1000, rel=1e-5)
    assert told.pop("tokenwire.run.time_per_output_token") == per_token
    asked_for = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": "scripted",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": len(MARKER),
        "gen_ai.usage.output_tokens": 5,
        "tokenwire.run.id": run_id,
    }
    assert told == asked_for | {
        "gen_ai.provider.name": "tokenwire",
        "gen_ai.response.id": run_id,
        "tokenwire.request.id": "mine",
        "tokenwire.run.outcome": "completed",
        "tokenwire.run.attempts": 1,
    }
    tried = said(attempt)
    # How long these are, tests/unit/telemetry/test_run_spans.py says with a clock of its own.
    assert isinstance(tried.pop("gen_ai.response.time_to_first_chunk"), float)
    assert tried == asked_for | {
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "scripted",
        "tokenwire.engine.name": "a",
        "tokenwire.attempt": 1,
        "tokenwire.continuation": "first",
        "tokenwire.attempt.outcome": "completed",
    }
    assert not any(span.events for span in watched.spans)


@pytest.mark.asyncio
async def test_a_chat_is_named_one() -> None:
    with seen() as watched:
        async with service(ScriptedEngine()) as running:
            await running.chat.Chat(ChatRequest(messages=[Message(content="hi")], sampling=Sampling(n=2)))
            _, run, (attempt,) = await tree(watched, 3, "tokenwire.v1.ChatService/Chat")
    assert attempt.name == "chat scripted"
    assert said(attempt)["gen_ai.request.choice.count"] == 2
    assert said(run)["gen_ai.response.finish_reasons"] == ("length", "length")


@pytest.mark.asyncio
async def test_each_engine_that_is_tried_has_its_span_and_the_last_one_tells_the_pause() -> None:
    toy = ToyModel()
    engines = [toy.engine("a", die_after=[20]), toy.engine("b", die_after=[20]), toy.engine("c")]
    with seen() as watched:
        async with service(*engines) as running:
            asked = GenerateRequest(prompt="Tell me.", stopping=Stopping(max_tokens=60))
            await text_of(running.generate.StreamGenerate(asked))
            call, run, inside = await tree(watched, 6)
    # After the second failure there is a pause.
    (queue,) = [span for span in inside if span.name == "queue wait"]
    assert said(queue)["tokenwire.attempt"] == 3
    inside.remove(queue)
    tries = [
        (one["tokenwire.engine.name"], one["tokenwire.attempt"], one["tokenwire.continuation"], one.get("error.type"))
        for one in map(said, inside)
    ]
    assert tries == [
        ("a", 1, "first", "ENGINE_LOST"),
        ("b", 2, "by_tokens", "ENGINE_LOST"),
        ("c", 3, "by_tokens", None),
    ]
    statuses = [span.status.status_code for span in (*inside, run, call)]
    assert statuses == [StatusCode.ERROR, StatusCode.ERROR, *[StatusCode.UNSET] * 3]
    assert ["tokenwire.pause" in said(span) for span in inside] == [False, True, True]
    assert [said(span)["gen_ai.usage.output_tokens"] for span in inside] == [20, 20, 20]
    assert (said(run)["tokenwire.run.attempts"], said(run)["gen_ai.usage.output_tokens"]) == (3, 60)


@pytest.mark.asyncio
async def test_a_run_that_waits_for_a_place_has_a_span_for_it() -> None:
    leave = asyncio.Event()
    engine = ScriptedEngine("a", slots=1, script=lambda job: [WaitFor(leave), *words("done")])
    with seen() as watched:
        async with service(engine) as running:
            calls = [asyncio.create_task(text_of(running.generate.StreamGenerate(ask()))) for _ in range(2)]
            await until(lambda: running.app.fleet.places.waiting == 1, "one waits")
            leave.set()
            await asyncio.gather(*calls)
            await watched.ended(7)
    (queue,) = watched.named("queue wait")
    waited = [span for span in watched.named("text_completion") if parent_of(span) == parent_of(queue)]
    assert said(queue) == {
        "tokenwire.attempt": 1,
        "tokenwire.queue.outcome": "seated",
        "tokenwire.engine.name": "a",
    }
    assert (queue.end_time or 0) <= (waited[0].start_time or 0)


@pytest.mark.asyncio
async def test_a_run_that_is_cancelled_is_no_error() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("one two")[:-1], Pause(None)])
    with seen() as watched:
        async with service(engine) as running:
            stream = running.generate.StreamGenerate(ask(request_id="r"))
            await next_event(stream)
            await running.runs.CancelRun(CancelRunRequest(request_id="r"))
            while await stream.read() is not grpc.aio.EOF:
                pass
            await watched.ended(4)
    (run,), (attempt,) = watched.named("run "), watched.named("text_completion")
    assert (said(run)["tokenwire.run.outcome"], said(run)["gen_ai.response.finish_reasons"]) == (
        "cancel",
        ("cancelled",),
    )
    assert (said(attempt)["tokenwire.attempt.outcome"], said(attempt)["tokenwire.stop.cause"]) == ("stopped", "cancel")
    assert {span.status.status_code for span in watched.spans} == {StatusCode.UNSET}
    assert not any("error.type" in said(span) for span in watched.spans)


@pytest.mark.asyncio
async def test_a_client_that_leaves_ends_its_call_and_its_run_without_an_error() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("one two")[:-1], Pause(None)])
    with seen() as watched:
        async with service(engine, orphan_grace_seconds=0) as running:
            stream = running.generate.StreamGenerate(ask())
            await next_event(stream)
            stream.cancel()
            call, run, (attempt,) = await tree(watched, 3)
    assert said(call)["rpc.response.status_code"] == "CANCELLED"
    assert (said(run)["tokenwire.run.outcome"], said(attempt)["tokenwire.stop.cause"]) == ("orphaned", "orphaned")
    assert {span.status.status_code for span in watched.spans} == {StatusCode.UNSET}


@pytest.mark.asyncio
async def test_a_deadline_is_an_error_of_the_call_and_not_of_the_run_that_outlives_it() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("one")[:-1], Pause(None)])
    with seen() as watched:
        async with service(engine) as running:
            call = running.generate.Generate(ask(request_id="r", detached=True), timeout=0.5)
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            (span,) = await watched.ended(1)
            assert (span.name, span.status.status_code) == (GENERATE, StatusCode.ERROR)
            assert said(span)["error.type"] == "DEADLINE_EXCEEDED"
            await running.runs.CancelRun(CancelRunRequest(request_id="r"))
            await watched.ended(4)
    (run,) = watched.named("run ")
    assert parent_of(run) == id_of(span)
    assert (run.end_time or 0) > (span.end_time or 0)
    assert run.status.status_code is StatusCode.UNSET
    assert said(run)["tokenwire.run.detached"] is True


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [(LOST, "ENGINE_LOST", "DATA_LOSS"), (ValueError(MARKER), "INTERNAL", "INTERNAL")],
)
async def test_a_failure_is_one_of_the_call_the_run_and_the_attempt(error: Exception, reason: str, code: str) -> None:
    engine = ScriptedEngine(script=lambda job: [*words("one")[:-1], Fail(error)])
    with seen() as watched:
        async with service(engine, failover="none") as running:
            await read_to_refusal(running.generate.StreamGenerate(ask()))
            spans = await tree(watched, 3)
    for span in (*spans[:2], *spans[2]):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert said(span)["error.type"] == reason
        assert not span.events
    assert said(spans[0])["rpc.response.status_code"] == code
    assert said(spans[1])["tokenwire.run.outcome"] == "failed"


@pytest.mark.asyncio
async def test_a_method_that_nobody_has_is_a_span_without_its_name() -> None:
    with seen() as watched:
        async with service(ScriptedEngine()) as running:
            for kind in range(20):
                told = await refused(unary_call(running.channel, f"/{MARKER}.Service{kind}/Method")(b"{}"))
                assert (told.code, told.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
            spans = await watched.ended(20)
        (point,) = watched.points("rpc.server.call.duration")
    assert {(span.name, span.status.status_code) for span in spans} == {("grpc", StatusCode.ERROR)}
    assert said(spans[0])["rpc.method"] == "_OTHER"
    assert said(spans[0])["error.type"] == "METHOD_UNKNOWN"
    assert (point.count, point.attributes["rpc.method"]) == (20, "_OTHER")
    assert MARKER not in "".join(span.to_json() for span in spans)


def said_words(running: Service, **asked: Any) -> Any:
    return running.chat.Chat(
        ChatRequest(messages=[Message(content=MARKER)], stopping=Stopping(stop=[f"stop {MARKER}"]), **asked)
    )


@pytest.mark.asyncio
async def test_content_is_told_only_if_it_is_asked_for() -> None:
    fields = (*ScriptedEngine().fields, "stopping.stop")
    for capture in (False, True):
        engine = ScriptedEngine(script=lambda job: words(f"answer {MARKER}"), fields=fields)
        with seen() as watched:
            async with service(engine, capture_content=capture) as running:
                await said_words(running)
                await watched.ended(3)
            assert MARKER not in str(watched.measured())
        told = "".join(span.to_json() for span in watched.spans)
        assert (MARKER in told) is capture
        if capture:
            (run,) = watched.named("run ")
            assert said(run)["gen_ai.input.messages"] == (
                f'[{{"role": "user", "parts": [{{"type": "text", "content": "{MARKER}"}}]}}]'
            )
            assert f'"content": "answer {MARKER}"' in str(said(run)["gen_ai.output.messages"])
            (attempt,) = watched.named("chat")
            assert said(attempt)["gen_ai.request.stop_sequences"] == (f"stop {MARKER}",)


@pytest.mark.asyncio
async def test_the_spans_of_a_run_do_not_grow_with_its_tokens() -> None:
    for tokens in (1, 500):
        with seen() as watched:
            async with service(ScriptedEngine()) as running:
                asked = GenerateRequest(prompt="hi", stopping=Stopping(max_tokens=tokens))
                await text_of(running.generate.StreamGenerate(asked))
                _, run, _ = await tree(watched, 3)
            assert sum(len(span.events) + len(span.links) for span in watched.spans) == 0
            assert said(run)["gen_ai.usage.output_tokens"] == tokens


@pytest.mark.asyncio
async def test_the_items_of_a_batch_are_runs_in_the_span_of_the_call_that_brought_them() -> None:
    with seen() as watched:
        async with service(ScriptedEngine()) as running:
            talk = Talk(running)
            await talk.open()
            for number in range(3):
                await talk.item(f"item-{number}")
            await talk.close()
            while await talk.call.read() is not grpc.aio.EOF:
                pass
            await watched.ended(7)
    (call,), runs = watched.named("tokenwire.v1.BatchService/BatchGenerate"), watched.named("run ")
    assert [parent_of(run) for run in runs] == [id_of(call)] * 3
    assert sorted(map(parent_of, watched.named("text_completion"))) == sorted(map(id_of, runs))  # type: ignore[type-var]
    assert not linked(call)
