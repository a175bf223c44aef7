"""Reads streams of events."""

from typing import Any

from tokenwire.v1.event_pb2 import Event


async def next_event(stream: Any) -> Event:
    """Reads one event; the stream must have one."""
    event = await stream.read()
    assert isinstance(event, Event), "the stream has ended"
    return event


async def text_of(stream: Any) -> str:
    """Reads a stream to its end, and returns its text."""
    return "".join([event.delta.text async for event in stream])
