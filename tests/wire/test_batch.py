"""BatchGenerate: many requests over one stream, each with its own end."""

import asyncio

import grpc
import pytest

from harness.batching import Gates, Talk, generate_item, outcomes, the_batch
from harness.byte_calls import bidi_call
from harness.refusals import read_to_refusal, refused
from harness.service import service
from harness.waiting import until
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.generation import Job, Piece
from tokenwire.engines.scripted import Emit, Fail, ScriptedEngine, Step, words
from tokenwire.v1.batch_service_pb2 import BatchGenerateRequest, BatchItem, BatchProgress
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SENTENCE, Buffering, Delivery
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import Message
from tokenwire.v1.run_pb2 import Limits, RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest
from tokenwire.v1.sampling_pb2 import Sampling, Stopping
from tokenwire.v1.server_service_pb2 import GetServerInfoRequest

METHOD = "/tokenwire.v1.BatchService/BatchGenerate"
LOST = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is lost", retryable=True, retry_after=1.5)


def echo(job: Job) -> list[Step]:
    return words(job.submission.prompt or "")


@pytest.mark.asyncio
async def test_results_come_in_the_order_of_their_ends_with_dense_numbers() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open(total=3)
        for one in "abc":
            await talk.item(one, one)
        await until(lambda: gates.engine.running == 3, "all run")
        for one in "bca":
            gates.open(one)
            assert (await talk.done()).item_id == one
        events = await talk.rest()
    assert [event.seq for event in events] == list(range(1, 9))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", *["item_started"] * 3, *["item_done"] * 3, "end"]
    started = {event.item_started.item_id: event.item_started.run_id for event in events[1:4]}
    assert {event.item_done.item_id: event.item_done.run_id for event in events[4:7]} == started
    assert outcomes(events) == {"a": "a", "b": "b", "c": "c"}
    assert events[0].started.batch_id.startswith("batch_")
    assert (events[0].started.max_in_flight, events[0].started.retention_seconds) == (8, 300)
    end = events[-1].end
    assert (end.succeeded, end.failed, end.usage.output_tokens) == (3, 0, 3)


@pytest.mark.asyncio
async def test_chats_and_prompts_are_answered_as_by_the_unary_rpcs() -> None:
    async with service(ScriptedEngine()) as running:
        prompt = GenerateRequest(prompt="hi", sampling=Sampling(n=2, seed=7), stopping=Stopping(max_tokens=5))
        chat = ChatRequest(messages=[Message(content="hi")], stopping=Stopping(max_tokens=5))
        alone = [await running.generate.Generate(prompt), await running.chat.Chat(chat)]
        talk = Talk(running)
        await talk.open()
        await talk.send(BatchGenerateRequest(item=BatchItem(item_id="prompt", generate=prompt)))
        await talk.send(BatchGenerateRequest(item=BatchItem(item_id="chat", chat=chat)))
        results = {done.item_id: done.result for done in (event.item_done for event in await talk.rest())}
    for name, other in zip(("prompt", "chat"), alone, strict=True):
        assert list(results[name].choices) == list(other.choices)
        assert (results[name].usage, results[name].model) == (other.usage, other.model)


@pytest.mark.asyncio
async def test_never_more_items_run_than_may_be_in_flight() -> None:
    gates = Gates()
    names = [str(number) for number in range(20)]
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open(max_in_flight=3)
        for name in names:
            await talk.item(name, name)
        for name in names:
            await until(lambda name=name: name in gates.prompts, "the next one runs")  # type: ignore[misc]
            assert gates.engine.running <= 3
            gates.open(name)
            assert (await talk.done()).item_id == name
        await talk.rest()
    assert gates.most == 3
    assert gates.engine.started == 20


@pytest.mark.asyncio
async def test_no_more_is_read_before_a_place_is_free() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open(max_in_flight=1)
        await talk.item("a", "a")
        # Would end the call at once.
        await talk.open()
        await until(lambda: gates.engine.running == 1, "it runs")
        await running.server.GetServerInfo(GetServerInfoRequest())
        gates.open("a")
        assert (await talk.done()).item_id == "a"
        assert (await talk.refusal()).reason == "INVALID_REQUEST"


@pytest.mark.asyncio
async def test_the_server_says_how_many_it_lets_be_in_flight() -> None:
    async with service(batch_in_flight_max=2) as running:
        talk = Talk(running)
        await talk.open(max_in_flight=1000)
        assert (await talk.next()).started.max_in_flight == 2
        await talk.rest()


BAD = {
    "rule": GenerateRequest(prompt="hi", sampling=Sampling(temperature=9)),
    "several rules": GenerateRequest(sampling=Sampling(temperature=9)),
    "unknown model": GenerateRequest(prompt="hi", model="nothing"),
    "unsupported field": GenerateRequest(prompt="hi", sampling=Sampling(top_k=5)),
    "unsupported policy": GenerateRequest(prompt="hi", limits=Limits(allow_partial=True)),
    "unsupported delivery": GenerateRequest(
        prompt="hi", delivery=Delivery(buffering=Buffering(mode=BUFFERING_MODE_SENTENCE))
    ),
    "too long": GenerateRequest(prompt="x" * 5000),
    "engine fails": GenerateRequest(prompt="fail"),
    "engine fails after text": GenerateRequest(prompt="fail late"),
    "unknown run": GenerateRequest(prompt="hi", after={"seq": 1}, run=RunOptions(request_id="nothing")),  # type: ignore[arg-type]
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", list(BAD))
async def test_a_bad_item_fails_alone_as_its_unary_rpc_would(name: str) -> None:
    def script(job: Job) -> list[Step]:
        failing: list[Step] = [Fail(LOST)]
        return {"fail": failing, "fail late": [*words("some")[:-1], *failing]}.get(
            job.submission.prompt or "", words("well")
        )

    async with service(ScriptedEngine(script=script), failover="none") as running:
        told = await refused(running.generate.Generate(BAD[name]))
        talk = Talk(running)
        await talk.open()
        await talk.item("before")
        await talk.send(BatchGenerateRequest(item=BatchItem(item_id="bad", generate=BAD[name])))
        await talk.item("behind")
        events = await talk.rest()
    error = next(event.item_done.error for event in events if event.item_done.item_id == "bad")
    assert (error.code, error.reason, error.message) == (told.code.value[0], told.reason, told.message)
    assert error.retryable == (told.metadata["retryable"] == "true")
    assert error.retry_after_ms == (told.retry_seconds or 0) * 1000
    assert outcomes(events) == {"before": "well", "bad": told.reason, "behind": "well"}
    assert (events[-1].end.succeeded, events[-1].end.failed) == (2, 1)


@pytest.mark.asyncio
async def test_an_id_that_another_request_has_fails_alone_and_the_same_request_is_known() -> None:
    gates = Gates("other")
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open()
        for prompt in ("one", "other", "one", "other"):
            await talk.item("a", prompt)
        taken = await talk.done()
        assert (taken.item_id, taken.run_id, taken.error.reason) == ("a", "", "ITEM_ID_TAKEN")
        gates.open("one")
        events = await talk.rest()
    assert outcomes(events) == {"a": "one"}
    assert gates.prompts == ["one"]
    assert (events[-1].end.succeeded, events[-1].end.failed) == (1, 1)


@pytest.mark.asyncio
async def test_a_request_id_finds_its_run_within_a_batch_too() -> None:
    async with service(ScriptedEngine(script=echo)) as running:
        run = RunOptions(request_id="one")
        alone = await running.generate.Generate(GenerateRequest(prompt="hi", run=run))
        talk = Talk(running)
        await talk.open()
        await talk.item("a", "hi", run=run)
        await talk.item("b", "ho", run=run)
        events = await talk.rest()
    assert {event.item_done.run_id for event in events} == {"", alone.run_id}
    assert outcomes(events) == {"a": "hi", "b": "REQUEST_ID_TAKEN"}


@pytest.mark.asyncio
async def test_a_run_that_is_cancelled_from_elsewhere_is_an_answer_as_far_as_it_came() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open()
        await talk.item("a", "long")
        await talk.next()
        run_id = (await talk.next()).item_started.run_id
        await running.runs.CancelRun(CancelRunRequest(run_id=run_id))
        done = await talk.done()
        assert done.HasField("result")
        await talk.rest()


@pytest.mark.asyncio
async def test_progress_tells_the_counts_and_what_is_left() -> None:
    gates = Gates("a", "b", "c")
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open(total=6)
        await talk.next()
        for one in "abcd":
            await talk.item(one, one)
        await talk.item("bad", "")
        await until(lambda: the_batch(running).received == 5, "all are read")
        await talk.close()
        # The fourth item is stuck, so that there is nothing else to read.
        told = BatchProgress()
        while (told.total, told.succeeded) != (5, 3):
            event = await talk.call.read()
            if event.HasField("progress"):
                assert event.seq == 0
                told = event.progress
        assert (told.received, told.running, told.failed, told.output_tokens) == (5, 1, 1, 3)
        gates.open("d")
        await talk.done()
        assert (await talk.next()).HasField("end")


@pytest.mark.asyncio
async def test_a_batch_without_items_ends_at_once() -> None:
    async with service() as running:
        talk = Talk(running)
        await talk.open()
        events = await talk.rest()
    assert [event.WhichOneof("event") for event in events] == ["started", "end"]


@pytest.mark.asyncio
@pytest.mark.parametrize("messages", [[], [BatchGenerateRequest(item=generate_item("a"))]], ids=["none", "an item"])
async def test_a_batch_must_be_opened_first(messages: list[BatchGenerateRequest]) -> None:
    async with service() as running:
        talk = Talk(running)
        for message in messages:
            await talk.send(message)
        await talk.close()
        _, told = await read_to_refusal(talk.call)
        assert not running.app.batches._batches
    assert (told.code, told.violations[0][0]) == (grpc.StatusCode.INVALID_ARGUMENT, "open")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("message", "field"),
    [
        (BatchGenerateRequest(open={}), "open"),  # type: ignore[arg-type]
        (BatchGenerateRequest(), "message"),
        (BatchGenerateRequest(item=BatchItem(generate=GenerateRequest(prompt="hi"))), "item.item_id"),
        (BatchGenerateRequest(item=BatchItem(item_id="a")), "item.request"),
    ],
    ids=["a second open", "nothing", "no id", "no request"],
)
async def test_a_message_that_breaks_a_rule_ends_the_call(message: BatchGenerateRequest, field: str) -> None:
    async with service() as running:
        talk = Talk(running)
        await talk.open()
        await talk.send(message)
        _, told = await read_to_refusal(talk.call)
    assert (told.code, told.violations[0][0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


@pytest.mark.asyncio
async def test_bytes_that_are_no_message_end_the_call_and_leave_nothing() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        bodies = [
            BatchGenerateRequest(open={}).SerializeToString(),  # type: ignore[arg-type]
            BatchGenerateRequest(item=generate_item("a", "never")).SerializeToString(),
            b"\xff\xff\xff\xff",
        ]
        _, told = await read_to_refusal(bidi_call(running.channel, METHOD)(iter(bodies)))
        assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "MALFORMED_REQUEST")
        await until(lambda: gates.engine.running == 0, "the item is cancelled")


@pytest.mark.asyncio
async def test_more_items_than_the_server_has_room_for_are_refused_when_the_others_are_answered() -> None:
    async with service(ScriptedEngine(script=echo), batch_items_max=3) as running:
        talk = Talk(running)
        await talk.open()
        for one in "abcd":
            await talk.item(one, one)
        messages, told = await read_to_refusal(talk.call)
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ITEMS")
        assert told.metadata["limit"] == "3"
        assert outcomes(messages) == {"a": "a", "b": "b", "c": "c"}
        # What nobody reads gives way.
        other = Talk(running)
        await other.open(total=2)
        await other.item("d", "d")
        assert outcomes(await other.rest()) == {"d": "d"}
        late = Talk(running)
        await late.open(total=4)
        assert (await read_to_refusal(late.call))[1].reason == "TOO_MANY_ITEMS"


@pytest.mark.asyncio
async def test_an_answer_larger_than_a_message_fails_alone_and_can_be_streamed() -> None:
    text = "x" * 60_000

    def script(job: Job) -> list[Step]:
        if job.submission.prompt == "large":
            return [Emit((Piece(channel=Channel(), text=text, token_count=1),)), *words("")]
        return words("small")

    async with service(ScriptedEngine(script=script), message_max_bytes=50_000) as running:
        talk = Talk(running)
        await talk.open()
        await talk.item("large", "large")
        await talk.item("small", "small")
        events = await talk.rest()
        assert outcomes(events) == {"large": "MESSAGE_TOO_LARGE", "small": "small"}
        run_id = next(event.item_done.run_id for event in events if event.item_done.item_id == "large")
        pieces = [event async for event in running.runs.AttachRun(AttachRunRequest(run_id=run_id))]
    assert "".join(event.delta.text for event in pieces) == text


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["memory", "retention"])
async def test_an_answer_that_was_given_up_is_said_to_be(how: str) -> None:
    def script(job: Job) -> list[Step]:
        return words("x" * 4000)

    settings = {"journal_max_bytes": 9000} if how == "memory" else {}
    async with service(ScriptedEngine(script=script), **settings) as running:
        talk = Talk(running)
        await talk.open(batch_id="one")
        await talk.item("a")
        first = await talk.done()
        await talk.rest()
        if how == "memory":
            await running.generate.Generate(GenerateRequest(prompt="more"))
        else:
            running.app.runs._forget(running.app.runs.get("local", run_id=first.run_id))
        again = Talk(running)
        await again.open(batch_id="one")
        events = await again.rest()
    (error,) = [event.item_done.error for event in events if event.HasField("item_done")]
    assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE.value[0], "TEXT_DROPPED")
    assert events[-1].end.succeeded == 1


@pytest.mark.asyncio
async def test_a_bug_in_one_item_is_internal_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(ScriptedEngine(script=echo)) as running:

        async def broken(*_: object) -> None:
            raise ValueError("secret=/etc/passwd")

        with monkeypatch.context() as patched:
            patched.setattr(type(running.app.fleet), "route", broken)
            talk = Talk(running)
            await talk.open()
            await talk.item("a", "a")
            done = await talk.done()
        assert (done.error.reason, done.error.message) == ("INTERNAL", "internal error")
        await talk.item("b", "b")
        assert outcomes(await talk.rest()) == {"a": "INTERNAL", "b": "b"}


@pytest.mark.asyncio
async def test_many_batches_at_once_are_all_served() -> None:
    engine = ScriptedEngine(script=echo)
    async with service(engine) as running:

        async def one(number: int) -> dict[str, str]:
            talk = Talk(running)
            await talk.open()
            for item in range(10):
                await talk.item(str(item), f"{number} {item}")
            return outcomes(await talk.rest())

        for number, found in enumerate(await asyncio.gather(*(one(number) for number in range(20)))):
            assert found == {str(item): f"{number} {item}" for item in range(10)}
    assert engine.started == 200
