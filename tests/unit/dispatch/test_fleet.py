"""Which engine answers for a model."""

import pytest

from tokenwire.dispatch.fleet import Fleet
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.engines.status import EngineState


def engines() -> tuple[ScriptedEngine, ScriptedEngine, ScriptedEngine]:
    return ScriptedEngine("a", model="m"), ScriptedEngine("b", model="m"), ScriptedEngine("c", model="other")


@pytest.mark.asyncio
async def test_the_least_busy_of_the_engines_that_are_ready_answers() -> None:
    a, b, c = engines()
    fleet = Fleet([a, b, c])
    assert (await fleet.route("m")).engine is a
    with fleet.running(a):
        assert (await fleet.route("m")).engine is b
        b.status.set(EngineState.LOADING)
        assert (await fleet.route("m")).engine is a
    a.status.set(EngineState.UNAVAILABLE)
    assert (await fleet.route("m")).engine is b
    assert (await fleet.route("other")).engine is c


@pytest.mark.asyncio
async def test_no_name_means_the_default_model() -> None:
    a, b, c = engines()
    assert (await Fleet([a, b, c]).route("")).model == "m"
    assert (await Fleet([a, b, c], default_model="other").route("")).engine is c


@pytest.mark.asyncio
async def test_an_unknown_model_is_told_with_the_names_that_there_are() -> None:
    with pytest.raises(NotFoundError, match="there is m, other"):
        await Fleet(engines()).route("no")


@pytest.mark.asyncio
async def test_while_no_engine_has_told_its_models_there_is_nobody_to_ask() -> None:
    silent = ScriptedEngine()
    silent.status.models = ()
    for model in ("", "m"):
        with pytest.raises(TokenwireError) as caught:
            await Fleet([silent]).route(model)
        assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "ENGINE_UNREACHABLE")


@pytest.mark.asyncio
async def test_a_run_counts_on_its_engine_even_if_it_fails() -> None:
    a, b, _ = engines()
    fleet = Fleet([a, b])
    with pytest.raises(ValueError, match="bug"), fleet.running(a):
        raise ValueError("bug")
    assert (await fleet.route("m")).engine is a
