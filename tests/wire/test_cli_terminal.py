"""What people see: `generate`, `chat` and tables on a terminal."""

import asyncio
import re

import pytest

from harness.command_line import on_terminal
from harness.service import service
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, PromptRead, Totals
from tokenwire.engines.scripted import Emit, Pause, ScriptedEngine, Step, WaitFor, words
from tokenwire.engines.status import EngineState

# A colour, a new title cut in two by the stream, a bell, a carriage return, a C1 sequence.
UNSAFE = ("\x1b[31mred\x1b[0m \x1b]0;new ", "title\x07and\ttab\x07\r\n", "\x9b2Jlast")


def unsafe(job: Job) -> list[Step]:
    pieces: list[Generated] = [Piece(channel=Channel(0), text=text, token_count=1) for text in UNSAFE]
    return [
        Emit((PromptRead(prompt_tokens=12, cached_tokens=4),)),
        *(Emit((piece,)) for piece in pieces),
        Emit(
            (
                ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH),
                Totals(prompt_tokens=12, cached_tokens=4, output_tokens=3),
            )
        ),
    ]


@pytest.mark.asyncio
async def test_an_answer_is_shown_without_control_codes_and_with_its_figures() -> None:
    async with (
        service(ScriptedEngine(script=unsafe)) as running,
        on_terminal("generate", "hi", "--target", running.address) as terminal,
    ):
        assert await terminal.ended() == 0
        [run] = running.app.runs.list("local")
    answer, footer = terminal.seen.split("\x1b[2m")
    assert answer == "red and\ttab\r\nlast\r\n"
    assert "tokens 12 in, 4 cached, 3 out · length · " + run.id in footer


@pytest.mark.asyncio
async def test_raw_leaves_control_codes_and_quiet_leaves_out_the_figures() -> None:
    async with (
        service(ScriptedEngine(script=unsafe)) as running,
        on_terminal("generate", "hi", "--raw", "--quiet", "--target", running.address) as terminal,
    ):
        assert await terminal.ended() == 0
    # A terminal puts a carriage return before each line break.
    assert terminal.seen == "".join(UNSAFE).replace("\n", "\r\n") + "\r\n"


@pytest.mark.asyncio
async def test_choices_have_headers() -> None:
    engine = ScriptedEngine(script=lambda job: words("one one") + words("two two", choice=1))
    async with (
        service(engine) as running,
        on_terminal("generate", "hi", "--n", "2", "--target", running.address) as terminal,
    ):
        assert await terminal.ended() == 0
    assert terminal.text.startswith("--- choice 0\none one\n--- choice 1\ntwo two\n")


@pytest.mark.asyncio
async def test_tokens_appear_as_they_arrive_and_loading_is_shown_before() -> None:
    released = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [words("first")[0], WaitFor(released), *words("second")])
    engine.status.set(EngineState.LOADING)
    async with (
        service(engine) as running,
        on_terminal("generate", "hi", "--target", running.address) as terminal,
    ):
        await terminal.shows("the model is being loaded")
        engine.status.set(EngineState.READY)
        await terminal.shows("first")
        released.set()
        await terminal.shows("second")
        assert await terminal.ended() == 0


@pytest.mark.asyncio
async def test_a_talk_keeps_its_history_and_survives_ctrl_c() -> None:
    jobs: list[Job] = []

    def script(job: Job) -> list[Step]:
        jobs.append(job)
        said = job.submission.messages[-1].content
        return [words("never")[0], Pause(None)] if said == "wait" else words(f"<{said}>")

    engine = ScriptedEngine(script=script)
    async with (
        service(engine) as running,
        on_terminal("chat", "--system", "short", "--target", running.address) as terminal,
    ):
        await terminal.shows("> ")
        terminal.type("one\n")
        await terminal.shows("<one>\n")
        terminal.type("wait\n")
        await terminal.shows("never")
        terminal.process.send_signal(2)
        await terminal.shows("cancelled")
        terminal.type("two\n")
        await terminal.shows("<two>\n")
        terminal.type("/exit\n")
        assert await terminal.ended() == 0
    heard = [(message.role.name, message.content) for message in jobs[-1].submission.messages]
    assert heard == [
        ("SYSTEM", "short"),
        ("USER", "one"),
        ("ASSISTANT", "<one>"),
        ("USER", "wait"),
        ("ASSISTANT", "never"),
        ("USER", "two"),
    ]
    assert engine.stopped == 1


@pytest.mark.asyncio
async def test_ctrl_d_ends_a_talk() -> None:
    async with service() as running, on_terminal("chat", "--target", running.address) as terminal:
        await terminal.shows("> ")
        terminal.type("\x04")
        assert await terminal.ended() == 0


@pytest.mark.asyncio
async def test_models_are_a_table() -> None:
    async with service() as running, on_terminal("models", "--target", running.address) as terminal:
        assert await terminal.ended() == 0
    heading, row = terminal.text.splitlines()
    assert re.split(r"\s{2,}", heading.strip()) == ["model", "default", "state", "context", "engines"]
    assert re.split(r"\s{2,}", row.strip()) == ["scripted", "default", "ready", "4096", "scripted (scripted)"]
