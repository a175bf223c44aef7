"""Generate and StreamGenerate over a real channel."""

import asyncio
import hashlib

import pytest

from harness.service import service
from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import PrefillProgress, PromptLogprobs, PromptRead
from tokenwire.engines.scripted import Emit, ScriptedEngine, WaitFor, words
from tokenwire.v1.event_pb2 import PHASE_PREFILL, Event
from tokenwire.v1.finish_pb2 import FINISH_REASON_STOP
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.output_pb2 import Logprobs, Output

TEXT = "Once upon a time, in a land of slow rivers — «ça va?» — 水が流れる. 👩‍👩‍👧 end"


@pytest.mark.asyncio
async def test_a_stream_is_start_dispatched_text_end_and_its_text_is_whole() -> None:
    engine = ScriptedEngine(script=lambda job: words(TEXT))
    async with service(engine) as running:
        events = [event async for event in running.generate.StreamGenerate(GenerateRequest(prompt="hi"))]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[:2] == ["start", "dispatched"]
    assert kinds[-1] == "end"
    assert set(kinds[2:-1]) == {"delta"}
    assert "".join(event.delta.text for event in events) == TEXT
    end = events[-1].end
    assert end.choices[0].finish_reason == FINISH_REASON_STOP
    assert end.channels[0].bytes == len(TEXT.encode())
    assert end.channels[0].sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert not end.HasField("error")


@pytest.mark.asyncio
async def test_offsets_are_contiguous_and_cursors_never_go_back() -> None:
    engine = ScriptedEngine(script=lambda job: words(TEXT))
    async with service(engine) as running:
        events: list[Event] = [event async for event in running.generate.StreamGenerate(GenerateRequest(prompt="hi"))]
    offset = 0
    for event in events:
        if event.HasField("delta"):
            assert event.delta.byte_offset == offset
            offset += len(event.delta.text.encode())
    seqs = [event.cursor.seq for event in events]
    assert seqs == sorted(seqs)


@pytest.mark.asyncio
async def test_a_unary_call_answers_with_the_whole_text() -> None:
    engine = ScriptedEngine(script=lambda job: words(TEXT))
    async with service(engine) as running:
        result = await running.generate.Generate(GenerateRequest(prompt="hi"))
    assert [choice.text for choice in result.choices] == [TEXT]
    assert result.choices[0].finish_reason == FINISH_REASON_STOP
    assert result.usage.output_tokens == len(TEXT.split(" "))


@pytest.mark.asyncio
async def test_a_stream_hears_how_far_a_long_prompt_was_read() -> None:
    def reading(done: int) -> Emit:
        return Emit((PrefillProgress(prompt_tokens=900, cached_tokens=100, done_tokens=done),))

    gates = [asyncio.Event() for _ in range(3)]
    read = Emit((PromptRead(prompt_tokens=900, cached_tokens=100),))
    steps = [reading(400), WaitFor(gates[0]), reading(800), WaitFor(gates[1]), read, WaitFor(gates[2]), *words(TEXT)]
    told: list[str] = []
    async with service(ScriptedEngine(script=lambda job: steps)) as running:
        async for event in running.generate.StreamGenerate(GenerateRequest(prompt="hi")):
            told.append(event.WhichOneof("event") or "")
            if event.HasField("progress"):
                progress = event.progress
                assert (progress.phase, progress.prefill_total, progress.prefill_cached) == (PHASE_PREFILL, 900, 100)
                assert progress.prefill_done == (400, 800)[told.count("progress") - 1]
                assert event.cursor.seq == 2
                gates[told.count("progress") - 1].set()
            elif event.HasField("usage"):
                assert event.usage.usage.prompt_tokens == 900
                gates[2].set()
    assert told[:5] == ["start", "dispatched", "progress", "progress", "usage"]
    assert set(told[5:-1]) == {"delta"}


@pytest.mark.asyncio
async def test_log_probabilities_of_the_prompt_reach_a_stream_and_a_unary_call() -> None:
    logprobs = (
        TokenLogprob(token_id=1, token="h", logprob=None),
        TokenLogprob(token_id=2, token="i", logprob=-0.5, top=(TokenLogprob(token_id=3, token="o", logprob=-0.25),)),
    )
    engine = ScriptedEngine(
        script=lambda job: [Emit((PromptLogprobs(logprobs=logprobs),)), *words("yes")],
        fields=("prompt", "output.prompt_logprobs.top_n"),
    )
    request = GenerateRequest(prompt="hi", output=Output(prompt_logprobs=Logprobs(top_n=1)))
    async with service(engine) as running:
        events = [event async for event in running.generate.StreamGenerate(request)]
        result = await running.generate.Generate(request)
    (told,) = [event.prompt for event in events if event.HasField("prompt")]
    assert told.token_offset == 0
    assert list(told.logprobs) == list(result.prompt_logprobs)
    assert [(one.token_id, one.HasField("logprob")) for one in told.logprobs] == [(1, False), (2, True)]
    assert told.logprobs[1].top[0].token_id == 3
