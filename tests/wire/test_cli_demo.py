"""`tokenwire demo`, which is what `make run` does."""

import pytest

from harness.command_line import tokenwire


@pytest.mark.asyncio
async def test_it_serves_streams_an_answer_and_ends_where_there_is_no_terminal() -> None:
    done = await tokenwire("demo", "Hello", "--listen", "127.0.0.1:0", "--engine", "scripted")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("tokenwire ")
    assert 'A client asks it to go on from "Hello":' in lines
    assert len(lines[-1].split()) > 20


@pytest.mark.asyncio
async def test_a_port_that_is_taken_ends_it_with_an_error() -> None:
    done = await tokenwire("demo", "--listen", "256.0.0.1:1", "--engine", "scripted")
    assert done.code != 0
    assert "Traceback" not in done.err
