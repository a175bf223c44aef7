"""Replies of one JSON value a line, against a server that sends what the test says."""

from contextlib import aclosing
from typing import Any

import pytest

from tokenwire.domain.errors import EngineError
from tokenwire.engines.framing import EVENTS, LINES
from tokenwire.engines.upstream import Upstream
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, always, chunk, serving

LINES_HEAD = STREAM_HEAD.replace(b"text/event-stream; charset=utf-8", b"application/x-ndjson")
BODY: dict[str, Any] = {"model": "m"}


async def read(answer: bytes, *, as_lines: bool = True) -> list[bytes]:
    async with serving(always(answer)) as server:
        upstream = Upstream(server.url)
        try:
            stream = upstream.events("/api/chat", BODY, framing=LINES if as_lines else EVENTS)
            async with aclosing(stream) as reads:
                return [line async for lines in reads for line in lines]
        finally:
            await upstream.close()


@pytest.mark.asyncio
async def test_a_reply_of_one_value_a_line_is_read_line_by_line() -> None:
    answer = LINES_HEAD + chunk(b'{"a":1}\n{"b"') + chunk(b":2}\n") + LAST_CHUNK
    assert await read(answer) == [b'{"a":1}', b'{"b":2}']


@pytest.mark.asyncio
@pytest.mark.parametrize("as_lines", [False, True])
async def test_one_framing_is_not_taken_for_the_other(as_lines: bool) -> None:
    head = STREAM_HEAD if as_lines else LINES_HEAD
    with pytest.raises(EngineError) as caught:
        await read(head + chunk(b'{"a":1}\n') + LAST_CHUNK, as_lines=as_lines)
    assert caught.value.reason == "UPSTREAM_PROTOCOL"


@pytest.mark.asyncio
async def test_a_last_line_without_an_end_is_cut() -> None:
    with pytest.raises(EngineError) as caught:
        await read(LINES_HEAD + chunk(b'{"a":1}\n{"b":2}') + LAST_CHUNK)
    assert caught.value.reason == "ENGINE_LOST"
