"""Which engine answers for a model."""

import asyncio

import pytest

from tokenwire.dispatch.fleet import ASK_SECONDS, Fleet
from tokenwire.dispatch.places import Wish
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
    with await fleet.places.take(Wish(candidates=lambda: [a]), 1):
        assert (await fleet.route("m")).engine is b
        b.status.set(EngineState.LOADING)
        assert (await fleet.route("m")).engine is a
    a.status.set(EngineState.UNAVAILABLE)
    assert (await fleet.route("m")).engine is b
    assert (await fleet.route("other")).engine is c


@pytest.mark.asyncio
async def test_an_engine_that_suits_the_request_goes_before_one_that_does_not() -> None:
    a, b, c = engines()
    fleet = Fleet([a, b, c])
    with await fleet.places.take(Wish(candidates=lambda: [b]), 1):
        assert (await fleet.route("m", lambda engine: engine is b)).engine is b
    # Somebody has to refuse it by name.
    assert (await fleet.route("m", lambda engine: False)).engine is a


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
    with pytest.raises(ValueError, match="bug"), await fleet.places.take(Wish(candidates=lambda: [a]), 1):
        raise ValueError("bug")
    assert (await fleet.route("m")).engine is a


class Slow(ScriptedEngine):
    """Tells its models only when it is asked, and takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self._told, self.status.models = self.status.models, ()

    async def check(self) -> None:
        """Answers after a second."""
        self.asked += 1
        await asyncio.sleep(1)
        self.status.models = self._told


@pytest.mark.asyncio
async def test_requests_that_come_before_any_model_is_known_share_one_question_and_all_get_its_answer() -> None:
    slow = Slow()
    fleet = Fleet([slow])
    routes = await asyncio.gather(*(fleet.route("scripted") for _ in range(10)))
    assert {route.engine for route in routes} == {slow}
    assert slow.asked == 1


@pytest.mark.asyncio
async def test_requests_for_unknown_models_do_not_make_the_engines_busy() -> None:
    slow = Slow()
    fleet = Fleet([slow])
    for _ in range(10):
        with pytest.raises(NotFoundError):
            await fleet.route("no")
    assert slow.asked == 1
    await asyncio.sleep(ASK_SECONDS)
    with pytest.raises(NotFoundError):
        await fleet.route("no")
    assert slow.asked == 2
