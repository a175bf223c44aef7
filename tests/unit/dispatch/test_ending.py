"""The figures in `end`."""

import pytest

from tokenwire.domain.events import End, Usage
from tokenwire.domain.generation import PromptRead, Totals
from tokenwire.domain.request import Sampling
from tokenwire.engines.scripted import Emit, Pause, Step
from unit.dispatch.house import House, asked, engine, say, stop


async def ended(*steps: Step, n: int = 1) -> End:
    house = House(engine(*steps))
    run = await house.submit(asked(sampling=Sampling(n=n)))
    # The call had come two seconds before its run was accepted.
    run.received_at -= 2
    await run.finished()
    assert run.end is not None
    await house.at_rest()
    return run.end


@pytest.mark.asyncio
async def test_times_are_those_of_the_text() -> None:
    writes = [step for number in range(101) for step in (Pause(0.05 if number == 50 else 0.01), say("a"))]
    timings = (await ended(Pause(0.99), *writes, Pause(1), stop())).timings
    assert (timings.first_token_ms, timings.time_to_first_token_ms) == (1000, 3000)
    assert timings.completed_ms == pytest.approx(3040, abs=2)
    assert timings.mean_time_between_tokens_ms == pytest.approx(10.4, abs=0.1)
    # One gap in a hundred was longer.
    assert timings.p99_time_between_tokens_ms == pytest.approx(10, abs=1)
    assert timings.tokens_per_second == pytest.approx(101 / 1.04, rel=0.01)


@pytest.mark.asyncio
async def test_times_between_tokens_are_taken_within_each_choice() -> None:
    one = (await ended(say("a"), say("b", 1), Pause(1), say("a"), say("b", 1), stop(), stop(1), n=2)).timings
    assert (one.mean_time_between_tokens_ms, one.p99_time_between_tokens_ms) == (1000.0, 1000.0)
    assert one.tokens_per_second == 4.0


@pytest.mark.asyncio
async def test_a_run_without_text_has_no_figures_of_text() -> None:
    end = await ended(Pause(1), stop())
    assert (end.timings.completed_ms, end.timings.first_token_ms, end.timings.tokens_per_second) == (1000, 0, 0.0)
    assert end.channels == ()


@pytest.mark.asyncio
async def test_the_engine_s_last_word_on_its_tokens_counts() -> None:
    read = Emit((PromptRead(prompt_tokens=10, cached_tokens=3),))
    end = await ended(read, say("a"), stop(), Emit((Totals(output_tokens=5, reasoning_tokens=4),)))
    assert end.usage == Usage(prompt_tokens=10, cached_tokens=3, output_tokens=5, reasoning_tokens=4)
