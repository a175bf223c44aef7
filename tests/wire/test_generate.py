"""Generate and StreamGenerate over a real channel."""

import hashlib

import pytest

from harness.service import service
from tokenwire.engines.scripted import ScriptedEngine, words
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.finish_pb2 import FINISH_REASON_STOP
from tokenwire.v1.generate_service_pb2 import GenerateRequest

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
