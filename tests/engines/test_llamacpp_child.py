"""The life of the embedded engine's real child: deaths, restarts, slots, limits."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

import tokenwire
from engines.embedded import (
    CLOCK,
    CONTEXT,
    SLOTS,
    busy_slots,
    child_of,
    connection_of,
    drain,
    endless,
    job,
    reaches,
    run,
    runs,
    slots_are_freed,
    started,
)
from harness.telling import told_by
from harness.waiting import until
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.generation import Job, Piece, Prompt
from tokenwire.domain.request import (
    Constraint,
    Sampling,
    Submission,
)
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.status import EngineState, ModelInfo
from tokenwire.engines.upstream import Upstream

pytestmark = [pytest.mark.llamacpp, pytest.mark.timeout(180)]


@pytest_asyncio.fixture
async def engine(cache: Path, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """Returns an engine with a child of its own: it is killed here."""
    async with started(cache, tmp_path) as engine:
        yield engine


@pytest.mark.asyncio
async def test_the_model_is_known_before_the_child_is_there(cache: Path, tmp_path: Path) -> None:
    engine = LlamaCppEngine(name="x", cache_dir=cache, log_dir=tmp_path, clock=CLOCK, rng=Random(1))
    assert engine.status.state is EngineState.LOADING
    assert engine.status.models == (ModelInfo("smollm2-135m-instruct", 2048),)
    with pytest.raises(EngineError) as caught:
        await anext(told_by(engine, Job(run_id="r", model="m", submission=Submission(), prompt=Prompt(token_ids=(1,)))))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "ENGINE_RESTARTING")
    assert caught.value.retry_after is not None
    await engine.close()


@pytest.mark.asyncio
async def test_a_file_of_the_users_is_served_under_its_own_name_with_llama_cpps_own_sampling(
    cache: Path, tmp_path: Path, engine: LlamaCppEngine
) -> None:
    path = tmp_path / "mine.gguf"
    path.symlink_to(cache / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert engine._base["repeat_penalty"] == 1.1
    async with started(tmp_path / "unused", tmp_path / "logs", model_path=path, slots=1) as mine:
        assert mine.status.models == (ModelInfo("mine", CONTEXT, 49_152),)
        assert mine._base == {}
        assert len((await run(mine)).pieces()) == 8
    assert not (tmp_path / "unused").exists()


@pytest.mark.asyncio
async def test_a_killed_child_breaks_the_stream_off_and_another_one_takes_its_place(engine: LlamaCppEngine) -> None:
    async with aclosing(told_by(engine, await job(engine, endless()))) as batches:
        await anext(batches)
        first = child_of(engine)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineError) as caught:
            async for _ in batches:
                pass
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "ENGINE_LOST")
    assert caught.value.retryable
    await reaches(engine, EngineState.UNAVAILABLE)
    with pytest.raises(EngineError) as refused:
        await run(engine)
    assert refused.value.reason == "ENGINE_RESTARTING"
    await reaches(engine, EngineState.READY)
    assert len((await run(engine)).pieces()) == 8
    assert child_of(engine) != first


@pytest.mark.asyncio
async def test_closing_the_engine_ends_its_child_in_the_middle_of_a_stream(cache: Path, tmp_path: Path) -> None:
    async with started(cache, tmp_path) as engine:
        batches = told_by(engine, await job(engine, endless()))
        await anext(batches)
        child = child_of(engine)
        await engine.close()
        assert not runs(child)
        await batches.aclose()


@pytest.mark.asyncio
async def test_the_child_dies_with_a_parent_that_is_killed(cache: Path, tmp_path: Path, engine: LlamaCppEngine) -> None:
    # `engine` has fetched the model.
    script = f"""
import asyncio, pathlib, sys, time
from tokenwire.engines.llamacpp.process import Process, child_command

async def main():
    model = pathlib.Path({str(cache / "SmolLM2-135M-Instruct.Q4_1.gguf")!r})
    command = child_command(model=model, alias="x", slots=1, context_per_slot=64, threads=1)
    child = await Process.start(command, log=pathlib.Path({str(tmp_path / "other.log")!r}), ready_timeout=60)
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(tokenwire.__file__).parents[1])}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert runs(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not runs(child), "the child follows its parent")


@pytest.mark.asyncio
async def test_closing_the_generator_frees_the_slot(engine: LlamaCppEngine) -> None:
    async with aclosing(told_by(engine, await job(engine, endless(sampling=Sampling(n=2))))) as batches:
        async for batch in batches:
            if any(isinstance(item, Piece) for item in batch):
                break
        assert await busy_slots(engine) == 2
    await slots_are_freed(engine)


@pytest.mark.asyncio
async def test_cancelling_a_reader_before_the_first_token_frees_the_slot(engine: LlamaCppEngine) -> None:
    reading = asyncio.create_task(drain(engine, await job(engine, endless())))
    while not await busy_slots(engine):
        pass
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await slots_are_freed(engine)


@pytest.mark.asyncio
async def test_a_grammar_that_would_take_all_memory_is_refused_and_the_child_lives(engine: LlamaCppEngine) -> None:
    child = child_of(engine)
    with pytest.raises(EngineError) as caught:
        await run(engine, constraint=Constraint(grammar='root ::= "a"{5,2}'))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert len((await run(engine)).pieces()) == 8
    assert child_of(engine) == child


@pytest.mark.asyncio
async def test_a_check_of_a_child_that_answers_makes_the_engine_ready(engine: LlamaCppEngine) -> None:
    engine.status.set(EngineState.UNAVAILABLE)
    await engine.check()
    assert engine.status.state is EngineState.READY


@pytest.mark.asyncio
async def test_as_many_streams_as_slots_run_at_once(engine: LlamaCppEngine) -> None:
    jobs = [await job(engine, endless()) for _ in range(SLOTS)]
    streams = [told_by(engine, one) for one in jobs]
    for stream in streams:
        await anext(stream)
    assert await busy_slots(engine) == SLOTS
    for stream in streams:
        await stream.aclose()
    await slots_are_freed(engine)


@pytest.mark.asyncio
async def test_the_log_holds_no_prompt_and_standard_output_stays_clean(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with started(cache, tmp_path) as engine:
        await run(engine, prompt="The canary is 5f0c9e")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "llama" not in captured.err
    assert "5f0c9e" not in (tmp_path / "llamacpp.log").read_text()


@pytest.mark.asyncio
async def test_nobody_else_on_this_machine_can_use_the_child(engine: LlamaCppEngine) -> None:
    stranger = Upstream(str(connection_of(engine).upstream._client.base_url), api_key="guessed")
    try:
        with pytest.raises(EngineError) as caught:
            await stranger.post("/tokenize", {"content": "x"})
    finally:
        await stranger.close()
    assert caught.value.reason == "UPSTREAM_AUTH"
