"""What an Ollama tells of its models."""

from dataclasses import replace

import pytest

from harness.ollama_stand_in import OllamaStandIn, StandInModel, ollama_stand_in
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.request import ReasoningEffort, Submission
from tokenwire.engines.status import EngineState, ModelInfo
from unit.engines.ollama.running import HI, engine_at, running, told

TINY = StandInModel(digest="d1")
HELLO = Submission(prompt="hi")


def shown(stand_in: OllamaStandIn) -> list[str]:
    return [body["model"] for body in stand_in.asked("/api/show")]


@pytest.mark.asyncio
async def test_the_latest_of_a_name_has_two_names() -> None:
    models = {"llama3.2:1b": TINY, "llama3.2:latest": replace(TINY, digest="d2")}
    async with running(models=models) as (engine, _):
        await engine.check()
        assert engine.status.state is EngineState.READY
        assert [model.name for model in engine.status.models] == ["llama3.2:1b", "llama3.2:latest", "llama3.2"]
        assert engine.status.load is None


@pytest.mark.asyncio
async def test_a_name_of_the_settings_may_be_without_its_tag() -> None:
    async with ollama_stand_in(models={"tiny:latest": replace(TINY, num_ctx=64)}) as stand_in:
        engine = engine_at(stand_in.url, model="tiny")
        await engine.check()
        await engine.close()
    assert engine.status.models == (ModelInfo("tiny", 64),)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "loaded", "window"),
    [
        (TINY, {}, None),
        (TINY, {"tiny:latest": 2048}, 2048),
        (TINY, {"other:latest": 2048}, None),
        (replace(TINY, num_ctx=1024), {"tiny:latest": 2048}, 1024),
        (replace(TINY, num_ctx=1024), {}, 1024),
        (replace(TINY, num_ctx=10_000, trained=512), {}, 512),
        (replace(TINY, num_ctx=1024, remote_host="https://cloud.test"), {}, None),
    ],
)
async def test_the_window_is_the_models_own_setting_or_that_of_the_loaded_model(
    model: StandInModel, loaded: dict[str, int], window: int | None
) -> None:
    async with running(models={"tiny:latest": model}, loaded=loaded) as (engine, stand_in):
        await engine.check()
        assert [known.context_window for known in engine.status.models] == [window, window]
        await told(engine, HELLO)
        assert stand_in.bodies[-1][1]["options"] == ({} if window is None else {"num_ctx": window})


@pytest.mark.asyncio
async def test_a_model_that_is_asked_for_before_the_first_check_is_looked_up() -> None:
    async with running(loaded={"tiny:latest": 2048}) as (engine, stand_in):
        for _ in range(2):
            await told(engine, HELLO)
        assert shown(stand_in) == ["tiny"]
        assert stand_in.bodies[-1][1]["options"] == {"num_ctx": 2048}


@pytest.mark.asyncio
async def test_a_window_that_is_known_once_the_model_is_loaded_is_announced_then() -> None:
    async with running(default_num_ctx=128) as (engine, _):
        await engine.check()
        await told(engine, HELLO)
        await engine.check()
        assert engine.status.model("tiny").context_window == 128


@pytest.mark.asyncio
async def test_a_model_is_asked_about_once_until_its_content_changes() -> None:
    async with running(models={"a:1": TINY, "b:1": replace(TINY, digest="d2")}) as (engine, stand_in):
        await engine.check()
        await engine.check()
        assert shown(stand_in) == ["a:1", "b:1"]
        stand_in.models["b:1"] = replace(TINY, digest="d3", num_ctx=99)
        await engine.check()
        assert shown(stand_in) == ["a:1", "b:1", "b:1"]
        assert engine.status.model("b:1").context_window == 99


@pytest.mark.asyncio
async def test_a_copy_of_a_model_has_its_own_name() -> None:
    async with running(models={"a:1": TINY, "b:1": TINY}) as (engine, stand_in):
        await engine.check()
        assert [model.name for model in engine.status.models] == ["a:1", "b:1"]
        assert shown(stand_in) == ["a:1"]


@pytest.mark.asyncio
async def test_a_model_that_only_embeds_is_not_listed() -> None:
    async with running(models={"a:1": TINY, "e:1": StandInModel(digest="d2", capabilities=("embedding",))}) as (
        engine,
        _,
    ):
        await engine.check()
        assert [model.name for model in engine.status.models] == ["a:1"]


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_shown_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(models={"a:1": TINY, "b:1": replace(TINY, digest="d2", num_ctx=64)}) as (engine, stand_in):
        hidden = stand_in.models
        # It is listed, but gone when it is asked about.
        monkeypatch.setattr(stand_in, "models", _Gone(hidden))
        await engine.check()
        assert engine.status.models == (ModelInfo("a:1"), ModelInfo("b:1", 64))
        monkeypatch.setattr(stand_in, "models", hidden)
        await engine.check()
        assert shown(stand_in) == ["a:1", "b:1", "a:1"]


class _Gone(dict[str, StandInModel]):
    def get(self, name: str, default: object = None) -> StandInModel | None:  # type: ignore[override]
        return None if name == "a:1" else self[name]


@pytest.mark.asyncio
async def test_an_ollama_that_would_ignore_fields_is_not_used() -> None:
    async with running(version="0.12.10") as (engine, stand_in):
        await engine.check()
        assert engine.status.state is EngineState.UNAVAILABLE
        with pytest.raises(EngineError) as caught:
            await told(engine, HELLO)
        assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "ENGINE_TOO_OLD")
        assert stand_in.asked("/api/generate") == []
        stand_in.version = "0.12.11"
        await engine.check()
        assert engine.status.model("tiny").name == "tiny"
        assert (await told(engine, HELLO)).ends


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["0.0.0", "0.12.11-rc0", "0.13.0+cuda", "1.0", "home-made"])
async def test_versions_that_are_new_enough_or_unknown_are_used(version: str) -> None:
    async with running(version=version) as (engine, _):
        await engine.check()
        assert engine.status.state is EngineState.READY


@pytest.mark.asyncio
async def test_levels_of_reasoning_need_a_version_that_takes_them() -> None:
    low = Submission(model="tiny", messages=HI, reasoning=ReasoningEffort.LOW)
    async with running(version="0.17.6") as (engine, stand_in):
        await engine.check()
        with pytest.raises(InvalidRequestError, match=r"^reasoning\.effort: "):
            engine.vet(low)
        stand_in.version = "0.17.7"
        await engine.check()
        engine.vet(low)


@pytest.mark.asyncio
async def test_a_model_that_always_reasons_is_not_told_not_to() -> None:
    models = {"gpt-oss:latest": replace(TINY, family="gptoss")}
    async with running(models=models, version="0.17.6") as (engine, _):
        await engine.check()
        engine.vet(Submission(model="gpt-oss", messages=HI, reasoning=ReasoningEffort.LOW))
        with pytest.raises(InvalidRequestError, match=r"^reasoning\.effort: "):
            engine.vet(Submission(model="gpt-oss", messages=HI, reasoning=ReasoningEffort.NONE))


@pytest.mark.asyncio
async def test_an_ollama_that_is_not_there_is_unavailable() -> None:
    engine = engine_at("http://127.0.0.1:1")
    await engine.check()
    assert engine.status.state is EngineState.UNAVAILABLE
    await engine.close()
