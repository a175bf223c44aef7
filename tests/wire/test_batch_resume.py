"""A batch outlives the call that brought its items: lost lines, late readers, grace, drain."""

import asyncio

import grpc
import pytest

from harness.batching import Gates, Talk, generate_item, outcomes, the_batch
from harness.fault_proxy import fault_proxy
from harness.leaving import leaving
from harness.reading import text_of
from harness.refusals import read_to_refusal
from harness.service import service
from harness.waiting import until
from tokenwire.engines.scripted import ScriptedEngine, words
from tokenwire.engines.status import EngineState
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchGenerateRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_service_pb2 import AttachRunRequest

NAMES = "abcdef"
GRACE = {"seconds": 60}


def echo() -> ScriptedEngine:
    return ScriptedEngine(script=lambda job: words(job.submission.prompt or ""))


@pytest.mark.asyncio
async def test_a_batch_is_read_again_after_every_number() -> None:
    async with service(echo()) as running:
        first = Talk(running)
        await first.open(batch_id="one")
        for name in NAMES:
            await first.item(name, name)
        whole = await first.rest()
        for after in range(len(whole) + 1):
            again = Talk(running)
            await again.open(batch_id="one", after=after)
            # Whoever has read the end gets it again.
            assert await again.rest() == whole[min(after, len(whole) - 1) :]
        assert len(running.app.runs.list("local")) == len(NAMES)


@pytest.mark.asyncio
@pytest.mark.parametrize("cut", range(1, 2 * len(NAMES) + 2))
async def test_a_line_that_breaks_after_any_event_loses_and_repeats_nothing(cut: int) -> None:
    engine = echo()
    async with service(engine) as running, fault_proxy(running.port) as proxy:
        events: list[BatchEvent] = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
            talk = Talk(channel)
            await talk.open(batch_id="one", orphan_grace=GRACE, max_in_flight=2)
            for name in NAMES:
                await talk.item(name, name)
            for _ in range(cut):
                await talk.next()
            await proxy.cut()
            events += talk.seen
            await talk.refusal()
            await until(lambda: not the_batch(running).readers, "the line is lost")
            again = Talk(running)
            await again.open(batch_id="one", after=events[-1].seq)
            for name in NAMES:
                if name not in outcomes(events):
                    await again.item(name, name)
            events += await again.rest()
    assert [event.seq for event in events] == list(range(1, 2 * len(NAMES) + 3))
    assert outcomes(events) == {name: name for name in NAMES}
    assert engine.started == len(NAMES)


@pytest.mark.asyncio
async def test_without_a_grace_a_lost_line_stops_what_runs_and_sent_again_it_runs_again() -> None:
    gates = Gates("a")
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open(batch_id="one", max_in_flight=3)
        for name in "abc":
            await talk.item(name, name)
        assert (await talk.done()).item_id == "a"
        await until(lambda: gates.engine.running == 2, "two run")
        talk.call.cancel()
        await until(lambda: gates.engine.running == 0, "the engine is idle")
        assert gates.engine.stopped == 2
        batch = the_batch(running)
        assert (batch.running, batch.succeeded, batch.failed) == (0, 1, 2)
        gates.open("b", "c")
        again = Talk(running)
        await again.open(batch_id="one", after=talk.seen[-1].seq)
        for name in "abc":
            await again.item(name, name)
        events = await again.rest()
    reasons = [
        (event.item_done.item_id, event.item_done.error.reason) for event in events if event.HasField("item_done")
    ]
    assert sorted(reasons[:2]) == [("b", "ORPHANED"), ("c", "ORPHANED")]
    assert outcomes(talk.seen + events) == {"a": "a", "b": "b", "c": "c"}
    assert (events[-1].end.succeeded, events[-1].end.failed) == (3, 0)
    assert gates.engine.started == 5


@pytest.mark.asyncio
async def test_the_grace_ends_and_then_the_engine_is_idle() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open(orphan_grace={"nanos": 200_000_000})
        await talk.item("a", "a")
        await until(lambda: gates.engine.running == 1, "it runs")
        talk.call.cancel()
        await until(lambda: not the_batch(running).readers, "the reader has left")
        assert gates.engine.running == 1
        await until(lambda: gates.engine.running == 0, "the grace is over")
        (run,) = running.app.runs.list("local")
        assert run.error is not None
        assert run.error.reason == "ORPHANED"


@pytest.mark.asyncio
async def test_a_batch_without_a_grace_stops_runs_that_would_have_one() -> None:
    gates = Gates()
    async with service(gates.engine, orphan_grace_seconds=60) as running:
        talk = Talk(running)
        await talk.open(orphan_grace={})
        await talk.item("a", "a", run={"orphan_grace": GRACE})
        await until(lambda: gates.engine.running == 1, "it runs")
        talk.call.cancel()
        await until(lambda: gates.engine.running == 0, "the engine is idle")


@pytest.mark.asyncio
async def test_another_reader_of_a_run_keeps_it_when_its_batch_is_cancelled() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open()
        await talk.item("a", "a", run={"request_id": "one"})
        await until(lambda: gates.engine.running == 1, "it runs")
        alone = asyncio.create_task(text_of(running.runs.AttachRun(AttachRunRequest(request_id="one"))))
        (run,) = running.app.runs.list("local")
        await until(lambda: run.readers == 2, "both read")
        talk.call.cancel()
        await until(lambda: not the_batch(running).running, "the batch is cancelled")
        gates.open("a")
        assert await alone == "a"


@pytest.mark.asyncio
async def test_a_detached_item_goes_on_without_its_batch() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        talk = Talk(running)
        await talk.open()
        await talk.item("a", "a", run={"detached": True})
        await until(lambda: gates.engine.running == 1, "it runs")
        talk.call.cancel()
        await until(lambda: not the_batch(running).running, "the batch is cancelled")
        gates.open("a")
        (run,) = running.app.runs.list("local")
        await run.finished()
        assert run.error is None


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["cancel", "channel", "line", "deadline"])
async def test_a_client_that_left_has_not_half_closed(how: str) -> None:
    # Every item that was sent is done at that moment, so that a half-close would end the batch.
    async with service(echo()) as running, fault_proxy(running.port) as proxy:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
            talk = Talk(channel, timeout=1.0 if how == "deadline" else None)
            await talk.open(batch_id="one")
            await talk.item("a", "a")
            await talk.done()
            if how == "cancel":
                talk.call.cancel()
            elif how == "channel":
                await channel.close()
            elif how == "line":
                await proxy.cut()
            else:
                assert await talk.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: not the_batch(running).readers, "the reader has left")
        assert not the_batch(running).log.ended
        again = Talk(running)
        await again.open(batch_id="one", after=talk.seen[-1].seq)
        await again.item("b", "b")
        assert outcomes(await again.rest()) == {"b": "b"}


@pytest.mark.asyncio
async def test_a_second_reader_sees_the_same_and_may_send_items_too() -> None:
    gates = Gates("b")
    async with service(gates.engine) as running:
        one, two = Talk(running), Talk(running)
        await one.open(batch_id="one")
        await one.item("a", "a")
        await one.next()
        await two.open(batch_id="one")
        await two.item("b", "b")
        assert (await two.done()).item_id == "b"
        await two.close()
        # The first one may still send.
        await until(lambda: any(reader.closed for reader in the_batch(running).readers), "one has half-closed")
        gates.open("a", "c")
        assert (await two.done()).item_id == "a"
        await one.item("c", "c")
        whole = await one.rest()
        while not (await two.next()).HasField("end"):
            pass
    assert two.seen == whole
    assert outcomes(whole) == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.asyncio
async def test_a_batch_that_is_not_there_or_not_so_long_cannot_be_gone_on_with() -> None:
    async with service(echo()) as running:
        lost = Talk(running)
        await lost.open(batch_id="nothing", after=3)
        told = (await read_to_refusal(lost.call))[1]
        assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND")
        assert told.resource == ("batch", "nothing")
        first = Talk(running)
        await first.open(batch_id="one")
        await first.rest()
        ahead = Talk(running)
        await ahead.open(batch_id="one", after=3)
        told = (await read_to_refusal(ahead.call))[1]
        assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CURSOR_AHEAD")
        bare = Talk(running)
        await bare.open(after=1)
        told = (await read_to_refusal(bare.call))[1]
        assert told.message == "open: after: needs batch_id, which names the batch"


@pytest.mark.asyncio
async def test_a_batch_that_has_ended_takes_what_it_knows_and_nothing_else() -> None:
    async with service(echo()) as running:
        first = Talk(running)
        await first.open(batch_id="one")
        await first.item("a", "a")
        whole = await first.rest()
        again = Talk(running)
        await again.open(batch_id="one")
        await again.item("a", "a")
        assert await again.rest() == whole
        more = Talk(running)
        await more.open(batch_id="one")
        await more.item("b", "b")
        messages, told = await read_to_refusal(more.call)
        assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BATCH_ENDED")
        assert [event for event in messages if event.seq] == whole[:-1]


@pytest.mark.asyncio
async def test_a_batch_is_forgotten_after_its_retention() -> None:
    async with service(echo(), retention_seconds=0.1) as running:
        talk = Talk(running)
        await talk.open(batch_id="one")
        await talk.rest()
        await until(lambda: not running.app.batches._batches, "it is forgotten")
        assert running.app.batches._held == 0


@pytest.mark.asyncio
async def test_a_draining_server_ends_what_is_in_flight_and_takes_nothing_new() -> None:
    gates = Gates()
    async with leaving(gates.engine, drain_seconds=600.0) as server:
        talk = Talk(server.service)
        await talk.open()
        await talk.item("a", "a")
        await until(lambda: gates.engine.running == 1, "it runs")
        await server.begin()
        await talk.item("b", "b")
        new = Talk(server.service)
        await new.open()
        told = (await read_to_refusal(new.call))[1]
        assert (told.code, told.reason, told.retry_seconds) == (grpc.StatusCode.UNAVAILABLE, "DRAINING", 1.0)
        gates.open("a")
        messages, told = await read_to_refusal(talk.call)
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert outcomes(messages) == {"a": "a"}
    assert gates.prompts == ["a"]


@pytest.mark.asyncio
async def test_a_draining_server_ends_a_batch_that_needs_no_more() -> None:
    gates = Gates()
    async with leaving(gates.engine, drain_seconds=600.0) as server:
        talk = Talk(server.service)
        await talk.open()
        await talk.item("a", "a")
        await until(lambda: gates.engine.running == 1, "it runs")
        await talk.close()
        await server.begin()
        gates.open("a")
        assert (await talk.done()).HasField("result")
        assert (await talk.next()).HasField("end")


@pytest.mark.asyncio
async def test_items_that_take_longer_than_the_drain_end_as_shut_down() -> None:
    gates = Gates()
    async with leaving(gates.engine, drain_seconds=0.1) as server:
        talk = Talk(server.service)
        await talk.open()
        await talk.item("a", "a")
        await until(lambda: gates.engine.running == 1, "it runs")
        server.leave.set()
        assert (await talk.done()).error.reason == "SHUTTING_DOWN"
        assert (await talk.refusal()).reason == "DRAINING"
    assert gates.engine.stopped == 1


@pytest.mark.asyncio
async def test_items_without_a_reader_do_not_outlive_the_server() -> None:
    gates = Gates()
    async with leaving(gates.engine, drain_seconds=0.0) as server:
        talk = Talk(server.service)
        await talk.open(orphan_grace=GRACE)
        await talk.item("a", "a")
        await until(lambda: gates.engine.running == 1, "it runs")
        talk.call.cancel()
        await until(lambda: not the_batch(server.service).readers, "the reader has left")
    assert gates.engine.running == 0


@pytest.mark.asyncio
async def test_items_that_wait_for_their_model_do_not_outlive_the_server() -> None:
    gates = Gates()
    gates.engine.status.set(EngineState.LOADING)
    async with leaving(gates.engine, drain_seconds=0.0) as server:
        talk = Talk(server.service)
        await talk.open(orphan_grace=GRACE)
        await talk.next()
        await talk.item("a", "a")
        await until(lambda: the_batch(server.service).running == 1, "it waits")
        talk.call.cancel()
        await until(lambda: not the_batch(server.service).readers, "the reader has left")
    assert gates.prompts == []


@pytest.mark.asyncio
async def test_many_lines_that_break_at_any_moment_leave_nothing() -> None:
    engine = ScriptedEngine(seconds_per_token=0.002)
    async with service(engine) as running:

        async def leave_after(events: int) -> None:
            talk = Talk(running)
            await talk.open(max_in_flight=4)
            for name in NAMES:
                await talk.item(name, name)
            for _ in range(events):
                await talk.next()
            talk.call.cancel()

        await asyncio.gather(*(leave_after(number % 8) for number in range(50)))
        await until(lambda: engine.running == 0, "the engine is idle")
        batches = running.app.batches._batches.values()
        await until(lambda: not any(batch.readers or batch.running for batch in batches), "nothing is left")
        await running.generate.Generate(GenerateRequest(prompt="hi"))


@pytest.mark.asyncio
async def test_who_opens_again_may_set_anew_how_much_is_in_flight() -> None:
    gates = Gates()
    async with service(gates.engine) as running:
        one, two = Talk(running), Talk(running)
        await one.open(batch_id="one", max_in_flight=1)
        await one.item("a", "a")
        await until(lambda: gates.engine.running == 1, "one runs")
        await two.open(batch_id="one", max_in_flight=2, orphan_grace=GRACE)
        await one.send(BatchGenerateRequest(item=generate_item("b", "b")))
        await until(lambda: gates.engine.running == 2, "two run")
        assert the_batch(running).grace == 60
        gates.open("a", "b")
        await two.close()
        await one.rest()
