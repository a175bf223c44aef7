"""`--timings` of `generate` and `chat`: after the answer, where the time went."""

import json

import pytest

from harness.command_line import on_terminal, tokenwire
from harness.service import service
from tokenwire.engines.scripted import ScriptedEngine, words

TEXT = "one two three four"


def rows(text: str) -> dict[str, str]:
    return dict(line.split("\t") for line in text.splitlines())


@pytest.mark.asyncio
@pytest.mark.parametrize("command", ["generate", "chat"])
async def test_the_answer_stays_on_standard_output_and_the_times_go_beside_it(command: str) -> None:
    async with service(ScriptedEngine(script=lambda job: words(TEXT))) as running:
        done = await tokenwire(command, "hi", "--timings", "--target", running.address)
    assert (done.code, done.out) == (0, TEXT)
    found = rows(done.err)
    assert found["output tokens"] == "4"
    times = {name: float(value.removesuffix(" ms")) for name, value in found.items() if value.endswith(" ms")}
    assert times["queued"] <= times["scheduled"] <= times["first token"] <= times["total"]
    # Tenths of milliseconds, of which a fast machine may need none; tests/unit/cli has a clock of its own.
    assert times["here: connection"] >= 0
    assert 0 <= times["here: first text"] <= times["here: total"]


@pytest.mark.asyncio
async def test_with_json_they_are_its_last_line() -> None:
    async with service(ScriptedEngine(script=lambda job: words(TEXT))) as running:
        done = await tokenwire("generate", "hi", "--timings", "--json", "--target", running.address)
    *events, last = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert set(last) == {"timings"}
    server, end = last["timings"]["server"], events[-1]["end"]
    assert server["completed_ms"] == end["timings"].get("completed_ms", 0)
    assert last["timings"]["tokens"]["output"] == end["usage"]["output_tokens"] == 4
    assert set(last["timings"]["client"]) == {"connection_ms", "first_text_ms", "total_ms"}


@pytest.mark.asyncio
async def test_without_a_server_the_error_is_all_there_is() -> None:
    done = await tokenwire("generate", "hi", "--timings", "--target", "127.0.0.1:1")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("tokenwire: UNAVAILABLE: cannot reach 127.0.0.1:1: nothing listens there. ")


@pytest.mark.asyncio
async def test_on_a_terminal_they_are_a_table() -> None:
    async with (
        service(ScriptedEngine(script=lambda job: words(TEXT))) as running,
        on_terminal("generate", "hi", "--timings", "--quiet", "--target", running.address) as terminal,
    ):
        assert await terminal.ended() == 0
    answer, *table = terminal.text.splitlines()
    assert answer == TEXT
    assert [line.rsplit("  ", 1)[0].strip() for line in table][:2] == ["queued", "scheduled"]
    assert len({len(line) for line in table}) == 1
