"""The Python client for coroutines against a real server."""

import asyncio

import pytest

from harness.service import service
from harness.waiting import until
from tokenwire.domain.errors import Code as DomainCode
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import Fail, Pause, ScriptedEngine, Step, WaitFor, words
from tokenwire.engines.status import EngineState
from tokenwire.engines.support import Cell, Support
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.event_pb2 import PHASE_LOADING, Progress
from tokenwire.v1.finish_pb2 import FINISH_REASON_CANCELLED, FINISH_REASON_STOP
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import FAILOVER_POLICY_NONE
from tokenwire_client import AsyncClient, BrokenError, Code, OverdueError, Policy, RefusedError, RunFailedError

TEXT = "Once upon a time,\n\n in a land of slow rivers — «ça va?» — 水が流れる. 👩‍👩‍👧\r\n end\n"
QUICK = Policy(first_wait=0.01, longest_wait=0.05)


def endless(job: Job) -> list[Step]:
    return [*words("never ending")[:-1], Pause(None)]


@pytest.mark.asyncio
async def test_an_answer_comes_whole_or_in_pieces_or_as_events() -> None:
    engine = ScriptedEngine(script=lambda job: words(TEXT))
    async with service(engine) as running, AsyncClient(running.address) as client:
        result = await client.generate("hi")
        async with client.stream("hi") as stream:
            pieces = [piece async for piece in stream.pieces()]
        async with client.stream_chat([("system", "short"), "hi"], max_tokens=99) as chat:
            kinds = [event.WhichOneof("event") async for event in chat]
        [run, *_] = running.app.runs.list("local")
    assert (result.text, result.finish_reason, result.usage.output_tokens) == (TEXT, FINISH_REASON_STOP, 17)
    assert "".join(pieces) == TEXT == stream.text == chat.text
    assert (kinds[0], kinds[1], kinds[-1], kinds.count("end")) == ("start", "dispatched", "end", 1)
    assert stream.end is not None
    assert stream.usage == stream.end.usage
    assert run.submission.stopping.max_tokens == 99
    assert run.submission.run.orphan_grace == 30
    assert run.request_id == chat.request_id


@pytest.mark.asyncio
async def test_a_run_is_followed_waited_for_shown_listed_and_cancelled() -> None:
    going_on = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [*words("one")[:-1], WaitFor(going_on), *words(" two three")])
    async with service(engine) as running, AsyncClient(running.address) as client:
        async with client.stream("hi", detached=True, labels={"a": "b"}) as begun:
            async for _ in begun.pieces():
                break
        # Left, and not cancelled.
        assert engine.running == 1
        async with client.attach(begun.run_id, after=begun.cursor) as rest:
            going_on.set()
            assert (await rest.result()).text == rest.text == " two three"
        async with client.attach(request_id=begun.request_id, after=2) as late:
            assert (await late.result()).text == "one two three"
        whole = await client.wait(begun.run_id)
        shown = await client.get(request_id=begun.request_id)
        listed = await client.runs(labels={"a": "b"}, limit=1)
        cancelled = await client.cancel(request_id="in-advance")
        models = await client.models()
    assert (whole.text, whole.request_id) == ("one two three", begun.request_id)
    assert shown.run_id == listed[0].run_id == begun.run_id
    assert cancelled.choices[0].finish_reason == FINISH_REASON_CANCELLED
    assert [model.name for model in models] == ["scripted"]


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["break", "exception", "task"])
async def test_leaving_early_cancels_the_run_before_the_call_is_dropped(way: str) -> None:
    engine = ScriptedEngine(script=endless)
    reading = asyncio.Event()

    async def read(client: AsyncClient) -> None:
        # Without grace a dropped call alone would end the run as an orphan.
        async with client.stream("hi", orphan_grace=0) as stream:
            async for piece in stream.pieces():
                if "ending" not in piece:
                    continue
                if way == "break":
                    break
                if way == "exception":
                    raise KeyError
                reading.set()

    async with service(engine) as running, AsyncClient(running.address) as client:
        task = asyncio.create_task(read(client))
        if way == "task":
            await reading.wait()
            task.cancel()
        await asyncio.wait([task])
        [run] = running.app.runs.list("local")
        assert run.end is not None
        assert (run.error, run.end.choices[0].finish_reason) == (None, FinishReason.CANCELLED)
        assert task.cancelled() == (way == "task")
        assert task.cancelled() or isinstance(task.exception(), KeyError if way == "exception" else type(None))
        assert engine.stopped == 1


@pytest.mark.asyncio
async def test_a_stream_that_is_left_before_its_run_is_known_never_has_one() -> None:
    engine = ScriptedEngine()
    engine.status.set(EngineState.LOADING)
    told: list[Progress] = []
    async with service(engine) as running, AsyncClient(running.address) as client:
        async with client.stream("hi", on_progress=told.append) as stream:
            event = await anext(stream)
            assert event.progress.phase == PHASE_LOADING == told[0].phase
        [run] = running.app.runs.list("local")
        assert run.request_id == stream.request_id
        assert run.end is not None
    assert engine.started == 0


@pytest.mark.asyncio
async def test_a_wait_for_an_event_can_be_given_up_and_begun_again() -> None:
    going_on = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [*words("one")[:-1], WaitFor(going_on), *words(" two")])
    async with (
        service(engine) as running,
        AsyncClient(running.address) as client,
        client.stream("hi") as stream,
    ):
        pieces = stream.pieces()
        assert await anext(pieces) == "one"
        waiting = asyncio.create_task(anext(pieces))
        await asyncio.wait([waiting], timeout=0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        going_on.set()
        assert await anext(pieces) == " two"
        assert (await stream.result()).text == "one two"


@pytest.mark.asyncio
async def test_a_run_that_is_cancelled_in_the_block_comes_to_its_end() -> None:
    engine = ScriptedEngine(script=endless)
    async with (
        service(engine) as running,
        AsyncClient(running.address) as client,
        client.stream("hi") as stream,
    ):
        async for event in stream:
            if event.HasField("delta"):
                await stream.cancel()
        assert stream.end is not None
        assert stream.end.choices[0].finish_reason == FINISH_REASON_CANCELLED
        assert (await stream.result()).text == "never ending"


@pytest.mark.asyncio
async def test_a_run_that_fails_leaves_its_text_and_says_why() -> None:
    error = EngineError(DomainCode.UNAVAILABLE, "ENGINE_LOST", "the engine is gone", retryable=True, retry_after=1.0)
    engine = ScriptedEngine(script=lambda job: [*words("half an answer")[:-1], Fail(error)])
    async with service(engine) as running, AsyncClient(running.address) as client:
        with pytest.raises(RunFailedError) as caught:
            await client.generate("hi", failover=FAILOVER_POLICY_NONE)
    told = caught.value
    assert (told.code, told.reason, told.retryable, told.retry_after) == (Code.DATA_LOSS, "ENGINE_LOST", True, 1.0)
    assert (told.text, len(told.rpc_id), told.run_id[:4]) == ("half an answer", 16, "run_")
    assert told.cursor is not None
    assert str(told) == "DATA_LOSS (ENGINE_LOST): the engine is gone"
    assert engine.started == 1


@pytest.mark.asyncio
async def test_a_refusal_names_the_fields_at_fault_and_is_not_tried_again() -> None:
    attempts: list[int] = []
    async with service() as running, AsyncClient(running.address, policy=QUICK) as client:
        with pytest.raises(RefusedError) as caught:
            await client.generate("hi", temperature=9.0, on_reconnect=lambda attempt, *_: attempts.append(attempt))
        with pytest.raises(RefusedError) as unknown:
            await client.wait("run_nothing")
        with pytest.raises(RefusedError) as unseen:
            await client.get("run_nothing")
    assert (caught.value.code, caught.value.violations[0].field) == (Code.INVALID_ARGUMENT, "sampling.temperature")
    assert attempts == []
    assert (unknown.value.reason, unseen.value.reason) == ("RUN_NOT_FOUND", "RUN_NOT_FOUND")


@pytest.mark.asyncio
async def test_the_callers_time_is_for_all_of_it_and_the_run_is_cancelled() -> None:
    engine = ScriptedEngine(script=endless)
    async with service(engine) as running, AsyncClient(running.address) as client:
        with pytest.raises(OverdueError) as caught:
            await client.generate("hi", timeout=0.2)
        [run] = running.app.runs.list("local")
        assert run.end is not None
        assert run.error is None
    assert (caught.value.text, caught.value.code) == ("never ending", Code.DEADLINE_EXCEEDED)


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_is_tried_as_long_as_the_policy_says() -> None:
    attempts: list[float] = []
    policy = Policy(attempts=3, first_wait=0.01, longest_wait=0.02)
    async with AsyncClient("127.0.0.1:1", policy=policy) as client:
        with pytest.raises(BrokenError) as caught:
            await client.generate("hi", on_reconnect=lambda attempt, failure, wait: attempts.append(attempt))
    assert (caught.value.code, caught.value.cursor, attempts) == (Code.UNAVAILABLE, None, [1, 2, 3])
    async with AsyncClient("127.0.0.1:1", policy=Policy(wait_for_server=False)) as client:
        with pytest.raises(BrokenError):
            await client.models()


@pytest.mark.asyncio
async def test_a_request_that_is_ready_is_taken_as_it_is() -> None:
    request = GenerateRequest(prompt="hi", delivery=Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=4)))
    request.run.request_id = "mine"
    async with service(ScriptedEngine(script=lambda job: words("one two"))) as running:
        async with AsyncClient(running.address) as client, client.stream(request) as stream:
            assert [piece async for piece in stream.pieces()] == ["one two"]
        [run] = running.app.runs.list("local")
    assert run.request_id == "mine"
    assert not request.run.HasField("orphan_grace")


@pytest.mark.asyncio
async def test_choices_reasoning_and_tokens_are_in_the_result() -> None:
    def script(job: Job) -> list[Step]:
        return [*words("one one"), *words("two", choice=1)]

    engine = ScriptedEngine(script=script, fields=("prompt", "sampling.n", "output.token_ids"))
    request = GenerateRequest(prompt="hi")
    request.output.token_ids = True
    async with service(engine) as running, AsyncClient(running.address) as client:
        result = await client.generate(request, n=2)
        unary = await running.generate.Generate(_with(request, result.request_id))
    assert result.texts == ["one one", "two"]
    assert list(result.message.choices[0].token_ids) == [1000, 1001]
    assert result.message == unary


def _with(request: GenerateRequest, request_id: str) -> GenerateRequest:
    copy = GenerateRequest()
    copy.CopyFrom(request)
    copy.sampling.n = 2
    copy.run.request_id = request_id
    copy.run.orphan_grace.seconds = 30
    return copy


def unstreamed(*script: Step) -> ScriptedEngine:
    """Returns an engine that has a field which it cannot stream."""
    engine = ScriptedEngine(script=lambda job: script)
    engine.fields = {**engine.fields, "sampling.top_k": Cell(Support.NATIVE, unary_only=True)}
    return engine


@pytest.mark.asyncio
async def test_what_an_engine_cannot_stream_is_answered_all_the_same() -> None:
    engine = unstreamed(*words("hello"))
    async with service(engine) as running, AsyncClient(running.address) as client:
        assert (await client.generate("hi", top_k=3)).text == "hello"
        assert (await client.chat("hi", top_k=3)).text == "hello"
        with pytest.raises(RefusedError) as caught:
            await client.generate("hi", top_p=0.5)
        with pytest.raises(RefusedError):
            async with client.stream("hi", top_k=3) as stream:
                await stream.result()
    assert caught.value.reason == "FEATURE_UNSUPPORTED"
    assert engine.started == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["task", "timeout"])
async def test_a_whole_answer_that_nobody_waits_for_any_more_is_cancelled_too(way: str) -> None:
    engine = unstreamed(Pause(None))
    async with service(engine) as running, AsyncClient(running.address) as client:
        answer = asyncio.create_task(client.generate("hi", top_k=3, timeout=0.3 if way == "timeout" else None))
        await until(lambda: engine.running == 1, "the run is there")
        if way == "task":
            answer.cancel()
        await asyncio.wait([answer])
        assert answer.cancelled() if way == "task" else isinstance(answer.exception(), OverdueError)
        [run] = running.app.runs.list("local")
        assert run.end is not None
        assert run.error is None
