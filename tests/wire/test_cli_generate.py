"""`tokenwire generate` behind pipes."""

import json

import pytest

from harness.command_line import begun, interrupt, outcome, tokenwire
from harness.service import service
from harness.waiting import until
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import Job, Piece
from tokenwire.engines.scripted import Emit, Fail, Pause, ScriptedEngine, Step, words
from tokenwire.engines.status import EngineState

TEXT = "Once upon a time,\n\n in a land of slow rivers — «ça va?» — 水が流れる. \x1b[31m👩‍👩‍👧\r\n end\n"
MESSAGES = ("messages.role=SYSTEM", "messages.role=USER", "messages.content")
FIELDS = ("prompt", *MESSAGES, "sampling.n", "sampling.seed", "sampling.temperature", "sampling.top_p")
STOPPING = ("stopping.max_tokens", "stopping.stop")


def endless(job: Job) -> list[Step]:
    return [*words("never ending")[:-1], Pause(None)]


@pytest.mark.asyncio
async def test_a_pipe_gets_exactly_the_text() -> None:
    async with service(ScriptedEngine(script=lambda job: words(TEXT))) as running:
        done = await tokenwire("generate", "hi", "--target", running.address)
    assert (done.code, done.out, done.err) == (0, TEXT, "")


@pytest.mark.asyncio
@pytest.mark.parametrize("arguments", [["-"], []])
async def test_the_prompt_is_taken_from_standard_input(arguments: list[str]) -> None:
    engine = ScriptedEngine(script=lambda job: words(job.prompt.text or ""))
    async with service(engine) as running:
        # The address by variable, as people set it once.
        variables = {"TOKENWIRE_TARGET": running.address}
        done = await tokenwire("generate", *arguments, given="a\nlong prompt, ça va", variables=variables)
    assert (done.code, done.out) == (0, "a\nlong prompt, ça va")


@pytest.mark.asyncio
async def test_every_option_reaches_the_engine() -> None:
    jobs: list[Job] = []

    def script(job: Job) -> list[Step]:
        jobs.append(job)
        return words("one") + words("two", choice=1)

    options = {"temperature": 0, "top-p": 0.5, "seed": 9, "n": 2, "max-tokens": 7, "model": "scripted"}
    options |= {"buffer": "size:3", "request-id": "mine", "orphan-grace": 0.5, "system": "short"}
    flags = [f"--{name}={value}" for name, value in options.items()]
    async with service(ScriptedEngine(script=script, fields=FIELDS + STOPPING)) as running:
        further = "--stop", "END", "--stop", ".", "--detached", "--target", running.address
        done = await tokenwire("generate", "hi", *flags, *further)
    # The choices one after the other.
    assert (done.code, done.out, done.err) == (0, "one\ntwo", "")
    asked = jobs[0].submission
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, asked.n) == (0, 0.5, 9, 2)
    assert (asked.stopping.max_tokens, asked.stopping.stop) == (7, ("END", "."))
    assert (asked.run.request_id, asked.run.detached, asked.run.orphan_grace) == ("mine", True, 0.5)
    assert [message.content for message in asked.messages] == ["short", "hi"]


@pytest.mark.asyncio
async def test_by_default_the_run_has_an_id_and_half_a_minute_of_grace_and_the_sampling_is_the_servers() -> None:
    jobs: list[Job] = []

    def script(job: Job) -> list[Step]:
        jobs.append(job)
        return words("hello")

    async with service(ScriptedEngine(script=script)) as running:
        assert (await tokenwire("generate", "hi", "--target", running.address)).code == 0
    asked = jobs[0].submission
    assert asked.run.request_id.startswith("cli_")
    assert asked.run.orphan_grace == 30
    assert (asked.sampling.temperature, asked.sampling.seed, asked.stopping.max_tokens) == (None, None, 64)


@pytest.mark.asyncio
async def test_json_is_one_event_a_line_and_the_last_is_the_end() -> None:
    async with service(ScriptedEngine(script=lambda job: words(TEXT))) as running:
        done = await tokenwire("generate", "hi", "--json", "--target", running.address)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert "run_id" in events[0]["start"]
    assert "".join(event["delta"]["text"] for event in events if "delta" in event) == TEXT
    assert events[-1]["end"]["choices"] == [{"finish_reason": "FINISH_REASON_STOP"}]
    # Defaults are left out.
    assert "choice" not in events[2]["delta"]


def failing(job: Job) -> list[Step]:
    error = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is gone", retryable=True, retry_after=1.0)
    return [*words("half an answer")[:-1], Fail(error)]


@pytest.mark.asyncio
async def test_a_run_that_fails_leaves_its_text_and_one_clear_line() -> None:
    async with service(ScriptedEngine(script=failing), failover="none") as running:
        done = await tokenwire("generate", "hi", "--target", running.address)
    assert (done.code, done.out) == (2, "half an answer")
    assert done.err.startswith("tokenwire: DATA_LOSS (ENGINE_LOST): the engine is gone [retry after 1.0 s; rpc ")
    assert done.err.count("\n") == 1


@pytest.mark.asyncio
async def test_with_json_the_error_is_json_too() -> None:
    async with service(ScriptedEngine(script=failing), failover="none") as running:
        done = await tokenwire("generate", "hi", "--json", "--target", running.address)
    *_, end, last = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (2, "")
    assert end["end"]["error"]["reason"] == "ENGINE_LOST"
    assert (last["error"]["code"], last["error"]["retry_after_ms"]) == ("DATA_LOSS", 1000)
    assert last["error"]["metadata"]["retryable"] == "true"


@pytest.mark.asyncio
async def test_a_refusal_names_the_fields_at_fault() -> None:
    async with service() as running:
        wrong = "--temperature", "9", "--top-p", "3"
        done = await tokenwire("generate", "hi", *wrong, "--target", running.address)
    assert (done.code, done.out) == (2, "")
    assert "INVALID_ARGUMENT (INVALID_REQUEST): sampling.temperature: " in done.err
    assert "fields sampling.temperature, sampling.top_p;" in done.err


@pytest.mark.asyncio
async def test_without_a_server_the_error_says_how_to_start_one() -> None:
    done = await tokenwire("generate", "hi", "--target", "127.0.0.1:1")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("tokenwire: UNAVAILABLE: cannot reach 127.0.0.1:1: nothing listens there. ")
    assert "tokenwire serve" in done.err


@pytest.mark.asyncio
async def test_ctrl_c_cancels_the_run_on_the_server() -> None:
    engine = ScriptedEngine(script=endless)
    async with service(engine) as running:
        # Without grace, a dropped call alone would end the run as an orphan.
        async with begun("generate", "hi", "--target", running.address, "--orphan-grace", "0") as process:
            assert process.stdout is not None
            assert await process.stdout.readexactly(len("never ending")) == b"never ending"
            await interrupt(process)
            done = await outcome(process)
        assert (done.code, done.out, done.err) == (130, "", "")
        [run] = running.app.runs.list("local")
        assert run.end is not None
        assert (run.end.choices[0].finish_reason, run.error) == (FinishReason.CANCELLED, None)
    assert engine.stopped == 1


@pytest.mark.asyncio
async def test_ctrl_c_while_the_model_is_loaded_cancels_the_run_in_advance() -> None:
    engine = ScriptedEngine()
    engine.status.set(EngineState.LOADING)
    async with service(engine) as running:
        async with begun("generate", "hi", "--json", "--target", running.address) as process:
            assert process.stdout is not None
            assert b"PHASE_LOADING" in await process.stdout.readline()
            await interrupt(process)
            done = await outcome(process)
        [run] = running.app.runs.list("local")
    assert done.code == 130
    assert run.request_id.startswith("cli_")
    assert run.end is not None
    assert engine.started == 0


@pytest.mark.asyncio
async def test_ctrl_c_leaves_a_detached_run_alone() -> None:
    async with service(ScriptedEngine(script=endless)) as running:
        async with begun("generate", "hi", "--detached", "--request-id", "r1", "--target", running.address) as process:
            assert process.stdout is not None
            await process.stdout.readexactly(len("never ending"))
            await interrupt(process)
            done = await outcome(process)
        [run] = running.app.runs.list("local")
        assert run.end is None
    assert done.code == 130
    assert "tokenwire runs attach r1" in done.err


@pytest.mark.asyncio
async def test_a_reader_that_leaves_ends_the_command_quietly_and_the_run_too() -> None:
    def script(job: Job) -> list[Step]:
        piece = Emit((Piece(channel=Channel(0), text="x" * 4096, token_count=1),))
        return [*[piece] * 100, Pause(None)]

    engine = ScriptedEngine(script=script)
    async with service(engine) as running:
        command = "generate", "hi", "--target", running.address
        async with begun(*command) as process:
            assert process.stdout is not None
            await process.stdout.readexactly(5)
            # No reader is left on this side of the pipe.
            process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            done = await outcome(process)
        assert (done.code, done.err) == (0, "")
        await until(lambda: engine.stopped == 1, "the engine has stopped")


@pytest.mark.asyncio
async def test_a_timeout_is_an_error_and_cancels_the_run() -> None:
    engine = ScriptedEngine(script=endless)
    async with service(engine) as running:
        done = await tokenwire("generate", "hi", "--timeout", "0.5", "--target", running.address)
        [run] = running.app.runs.list("local")
        assert run.end is not None
    assert (done.code, done.out) == (2, "never ending")
    assert done.err == "tokenwire: DEADLINE_EXCEEDED: the time of --timeout is over\n"
