"""Readers that come and go get what the engine sent, and a journal that is broken on purpose is caught."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.history import LEFT, History, Reading, RecordingEngine
from harness.service import Service, service
from tokenwire.delivery.view import View
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.cursor import START, Channel, ChannelKind, Cursor
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.events import ChannelEnd, Delta, End, Envelope, FinishReason, Start
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Job, Piece, PromptRead
from tokenwire.engines.scripted import Emit, Fail, Pause, Step
from tokenwire.journal.log import RunLog
from tokenwire.rpc.events import to_cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.output_pb2 import Output
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

WORDS = (
    "a",
    " river",
    " naïve",
    " e\u0301",
    " शिही",
    " שלום",
    "水が流れる",
    " 👍🏽",
    "👩‍👩‍👧",
    "🇩🇪",
    "\n\n",
    '{"k": 1}',
)
KINDS = ((ChannelKind.TEXT, 0), (ChannelKind.TEXT, 0), (ChannelKind.REASONING, 0), (ChannelKind.TOOL_CALL, 0))


def script(job: Job) -> list[Step]:
    """Writes into every channel of two choices, in an order that the prompt chooses; the prompt says how it ends."""
    chance = random.Random(job.prompt.text)
    steps: list[Step] = [Emit((PromptRead(prompt_tokens=3, cached_tokens=1),))]
    for number in range(5000 if "cancel" in str(job.prompt.text) else 40):
        batch: list[Generated] = []
        for _ in range(chance.randint(1, 3)):
            channel = Channel(chance.randrange(2), *chance.choice(KINDS))
            ids = tuple(chance.choices(range(1000), k=chance.randint(0, 2)))
            # A token may have no text yet; at the end of a choice only the answer's are told.
            words = "" if channel.kind is ChannelKind.TEXT and not chance.randrange(4) else chance.choice(WORDS)
            batch.append(Piece(channel=channel, text=words, token_ids=ids))
        if number == 15:
            batch.append(CallHead(channel=Channel(1, ChannelKind.TOOL_CALL, 0), id="c", name="f"))
        if number == 30 and "fail" in str(job.prompt.text):
            return [*steps, Fail(EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "lost"))]
        steps += [Pause(0.001 * chance.randrange(3)), Emit(tuple(batch))]
    done = [ChoiceDone(choice=choice, finish_reason=FinishReason.STOP) for choice in range(2)]
    return [*steps, Emit(tuple(done))]


def mode(chance: random.Random) -> Delivery:
    def buffering() -> Buffering:
        size = chance.choice((0, 0, 1, 3, 17, 200))
        return Buffering(mode=BUFFERING_MODE_SIZE, size=size) if size else Buffering()

    return Delivery(buffering=buffering(), tool_call_buffering=buffering())


class Scenario:
    """Some runs, each with readers that leave, resume and come late."""

    def __init__(self, running: Service, engine: RecordingEngine, seed: int) -> None:
        self.history = History(engine)
        self._running = running
        self._chance = random.Random(seed)

    async def run(self, request_id: str, *, readers: int = 4, cancelled: bool = False) -> None:
        """Starts a run, and lets the readers read it to its end."""
        started, half_way = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(readers):
                group.create_task(self._follow(request_id, number, started, half_way))
            if cancelled:
                await half_way.wait()
                await self._running.runs.CancelRun(CancelRunRequest(request_id=request_id))

    async def _follow(self, request_id: str, number: int, started: asyncio.Event, half_way: asyncio.Event) -> None:
        cursor, calls = START, 0
        if number:
            await (half_way if number > 2 else started).wait()
        while True:
            calls += 1
            # A small number of messages may hold nothing new, so that every reader once stays.
            limit = self._chance.randint(1, 9) if calls < 8 else None
            reading = await self._call(request_id, number, cursor, limit, submits=calls == 1 and not number)
            started.set()
            if reading.status != LEFT:
                half_way.set()
                return
            cursor = reading.cursor
            if calls > 1:
                half_way.set()

    async def _call(self, request_id: str, number: int, after: Cursor, limit: int | None, *, submits: bool) -> Reading:
        delivery = mode(self._chance)
        call: Any
        if submits or self._chance.randrange(2):
            request = GenerateRequest(
                prompt=request_id,
                sampling=Sampling(n=2),
                stopping=Stopping(max_tokens=10_000),
                output=Output(token_ids=True),
                run=RunOptions(request_id=request_id, detached=True),
                delivery=delivery,
                after=None if submits else to_cursor(after),
            )
            call = self._running.generate.StreamGenerate(request)
        else:
            attach = AttachRunRequest(request_id=request_id, after=to_cursor(after), delivery=delivery)
            call = self._running.runs.AttachRun(attach)
        return await self.history.read(
            call, reader=f"reader {number}", request_id=request_id, after=after, token_ids=True, limit=limit
        )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.asyncio
async def test_readers_that_leave_resume_and_come_late_get_every_run_whole_and_once(seed: int) -> None:
    engine = RecordingEngine(script)
    async with service(engine, drain_seconds=5.0) as running:
        scenario = Scenario(running, engine, seed)
        async with asyncio.TaskGroup() as group:
            for name in ("first", "second", "fail in the middle"):
                group.create_task(scenario.run(f"{name.replace(' ', '-')}-{seed}"))
            group.create_task(scenario.run(f"cancelled-{seed}", cancelled=True))
    history = scenario.history
    assert history.problems() == []
    # It was no idle test: calls were left and resumed, and the runs ended in three ways.
    statuses = [reading.status for reading in history.readings]
    assert statuses.count(LEFT) > 20
    assert {status: statuses.count(status) for status in ("OK", "DATA_LOSS")} == {"OK": 12, "DATA_LOSS": 4}
    ends = [reading.messages[-1].end for reading in history.readings if reading.ended]
    reasons = {choice.finish_reason for end in ends for choice in end.choices}
    assert reasons >= {FinishReason.STOP, FinishReason.CANCELLED, FinishReason.ERROR}


def writes(change: Callable[[int, bytes], list[bytes]]) -> Callable[[pytest.MonkeyPatch], None]:
    """Breaks the journal: the text of each event, by its number, becomes these."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        append = RunLog.append_text

        def broken(self: RunLog, channel: Channel, text: str, *rest: Any, **more: Any) -> None:
            for one in change(self.head, text.encode()):
                append(self, channel, one.decode("utf-8", "replace"), *rest, **more)

        monkeypatch.setattr(RunLog, "append_text", broken)

    return patch


def takes(change: Callable[[list[Envelope]], list[Envelope]]) -> Callable[[pytest.MonkeyPatch], None]:
    """Breaks the view: what it sends at once becomes this."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        take = View.take
        monkeypatch.setattr(View, "take", lambda self: change(list(take(self))))

    return patch


def each(change: Callable[[Delta], Delta]) -> Callable[[pytest.MonkeyPatch], None]:
    """Breaks the view: every message with text becomes this."""

    def changed(one: Envelope) -> Envelope:
        return one._replace(event=change(one.event)) if isinstance(one.event, Delta) else one

    return takes(lambda out: [changed(one) for one in out])


def is_end(one: Envelope) -> bool:
    return isinstance(one.event, End)


def swapped(out: list[Envelope]) -> list[Envelope]:
    at = next((at for at, one in enumerate(out[:-1]) if isinstance(one.event, Delta)), None)
    if at is not None and not is_end(out[at + 1]):
        out[at], out[at + 1] = out[at + 1], out[at]
    return out


def no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = RunLog.channel_ends

    def wrong(self: RunLog) -> tuple[ChannelEnd, ...]:
        return tuple(replace(one, sha256="0") for one in ends(self))

    monkeypatch.setattr(RunLog, "channel_ends", wrong)


def cursor_of(cursor: Callable[[View], Cursor]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(View, "_cursor", cursor)


def never_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runs, "_joinable", lambda self, key, submission: None)


def resumes_early(monkeypatch: pytest.MonkeyPatch) -> None:
    start = View.__init__

    def init(self: View, log: RunLog, after: Cursor = START, *rest: Any, **more: Any) -> None:
        start(self, log, Cursor(max(after.seq - 2, 0)), *rest, **more)

    monkeypatch.setattr(View, "__init__", init)


SABOTAGE: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "drops an event": (writes(lambda head, data: [] if head == 20 else [data]), "P3"),
    "writes an event twice": (writes(lambda head, data: [data, data] if head == 20 else [data]), "P3"),
    "flips a byte": (writes(lambda head, data: [bytes([data[0] ^ 1]) + data[1:]] if head == 20 else [data]), "P3"),
    "loses accents": (writes(lambda head, data: [data.replace("é".encode(), b"e").replace(b"\xcc\x81", b"")]), "P3"),
    "swaps two messages": (takes(swapped), "P2"),
    "ends twice": (takes(lambda out: [*out, *filter(is_end, out)]), "P1"),
    "goes on after the end": (takes(lambda out: [*out, out[0]] if out and is_end(out[-1]) else out), "P1"),
    "forgets the end": (takes(lambda out: [one for one in out if not is_end(one)]), "P1"),
    "forgets the start": (takes(lambda out: [one for one in out if not isinstance(one.event, Start)]), "P2"),
    "drops a message": (takes(lambda out: out[:3] + out[4:] if len(out) > 5 else out), "P2"),
    "sends a message twice": (
        takes(lambda out: [out[0], *out] if out and isinstance(out[0].event, Delta) else out),
        "P2",
    ),
    "counts offsets from one": (each(lambda one: one._replace(byte_offset=one.byte_offset + 1)), "P2"),
    "mixes up choices": (each(lambda one: one._replace(channel=one.channel._replace(choice=1))), "P2"),
    "loses token ids": (each(lambda one: one._replace(token_ids=one.token_ids[1:])), "P3"),
    "miscounts tokens": (each(lambda one: one._replace(token_count=one.token_count + 1)), "P3"),
    "tells wrong digests": (no_digest, "P3"),
    "tells cursors too far ahead": (cursor_of(lambda view: Cursor(view._log.head)), "P2"),
    "tells cursors that stand still": (cursor_of(lambda view: Cursor(1)), "P2"),
    "resumes before the cursor": (resumes_early, "P2"),
    "starts a run for every submit": (never_joins, "P11"),
}


@pytest.mark.parametrize(("sabotage", "promise"), SABOTAGE.values(), ids=SABOTAGE.keys())
@pytest.mark.asyncio
async def test_a_service_that_breaks_a_promise_on_purpose_is_caught(
    sabotage: Callable[[pytest.MonkeyPatch], None], promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    engine = RecordingEngine(script)
    async with service(engine) as running:
        scenario = Scenario(running, engine, 0)
        await scenario.run("one", readers=3)
    problems = scenario.history.problems()
    assert any(problem.startswith(promise) for problem in problems), problems
