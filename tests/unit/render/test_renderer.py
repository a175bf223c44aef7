"""Prompts: by the engine's own means, within its window."""

from collections.abc import Sequence

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Constraint, Logprobs, Message, Output, Role, Sampling, Stopping, Submission
from tokenwire.engines.engine import Token
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.engines.status import EngineState, ModelInfo
from tokenwire.render.cache import PromptCache
from tokenwire.render.renderer import Renderer

HI = Message(role=Role.USER, content="hi")


async def render(submission: Submission, engine: ScriptedEngine, window: int | None) -> Prompt:
    return await Renderer().render(submission, engine, ModelInfo("scripted", window))


class Counting:
    """A tokenizer that counts how often it is asked: one token a byte."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.asked = 0
        self._inner = engine.tokenizer
        engine.tokenizer = self

    async def prompt(self, submission: Submission) -> Prompt:
        assert self._inner
        self.asked += 1
        return await self._inner.prompt(submission)

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        assert self._inner
        self.asked += 1
        return await self._inner.tokenize(text)

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        assert self._inner
        return await self._inner.answer_ids(text)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        assert self._inner
        return await self._inner.detokenize(token_ids)


@pytest.mark.asyncio
async def test_a_text_prompt_becomes_the_tokens_that_the_engine_reads() -> None:
    assert await render(Submission(prompt="aé"), ScriptedEngine(), None) == Prompt(
        text="aé", token_ids=(97, 195, 169), tokens=3
    )


@pytest.mark.asyncio
async def test_messages_go_through_the_engines_template() -> None:
    prompt = await render(Submission(messages=(HI,)), ScriptedEngine(), None)
    assert prompt.text == "user: hi\nassistant: "
    assert prompt.tokens == len("user: hi\nassistant: ")


@pytest.mark.asyncio
async def test_token_ids_are_taken_as_they_are() -> None:
    assert await render(Submission(prompt_ids=(5, 6)), ScriptedEngine(), None) == Prompt(token_ids=(5, 6), tokens=2)


@pytest.mark.asyncio
async def test_an_engine_without_a_tokenizer_gets_the_request_as_it_came() -> None:
    engine = ScriptedEngine()
    engine.tokenizer = None
    assert await render(Submission(prompt="a"), engine, 1) == Prompt(text="a")
    assert await render(Submission(messages=(HI,)), engine, 1) == Prompt()


@pytest.mark.asyncio
@pytest.mark.parametrize(("tokens", "fits"), [(3, True), (4, False), (5, False)])
async def test_one_place_of_the_window_is_left_for_the_answer(tokens: int, fits: bool) -> None:
    submission = Submission(prompt_ids=tuple(range(tokens)))
    if fits:
        assert (await render(submission, ScriptedEngine(), 4)).tokens == tokens
        return
    with pytest.raises(InvalidRequestError) as caught:
        await render(submission, ScriptedEngine(), 4)
    assert caught.value.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert caught.value.metadata == {"limit": "4", "got": str(tokens)}


@pytest.mark.asyncio
async def test_a_prompt_without_tokens_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await render(Submission(prompt=""), ScriptedEngine(), None)
    assert caught.value.violations[0].field == "prompt"


@pytest.mark.asyncio
async def test_the_same_prompt_is_rendered_once_for_an_engine() -> None:
    engine, renderer, model = ScriptedEngine(), Renderer(), ModelInfo("scripted")
    counting = Counting(engine)
    for _ in range(2):
        assert (await renderer.render(Submission(messages=(HI,)), engine, model)).text == "user: hi\nassistant: "
        assert (await renderer.render(Submission(prompt="hi"), engine, model)).tokens == 2
    assert counting.asked == 2
    again = Message(role=Role.SYSTEM, content="hi")
    assert (await renderer.render(Submission(messages=(again,)), engine, model)).text != "user: hi\nassistant: "
    assert counting.asked == 3


@pytest.mark.asyncio
async def test_an_engine_sees_each_constraint_of_the_same_prompt() -> None:
    engine, renderer, model = ScriptedEngine(), Renderer(), ModelInfo("scripted")
    counting = Counting(engine)
    for regex in ("a", "b", "a"):
        await renderer.render(Submission(prompt="hi", constraint=Constraint(regex=regex)), engine, model)
    assert counting.asked == 2


@pytest.mark.asyncio
async def test_an_engine_that_was_away_is_asked_anew() -> None:
    engine, renderer, model = ScriptedEngine(), Renderer(), ModelInfo("scripted")
    counting = Counting(engine)
    await renderer.render(Submission(prompt="hi"), engine, model)
    engine.status.set(EngineState.UNAVAILABLE)
    engine.status.set(EngineState.READY)
    await renderer.render(Submission(prompt="hi"), engine, model)
    assert counting.asked == 2


def test_the_cache_gives_up_what_was_not_used_for_longest_and_never_holds_more_than_its_bound() -> None:
    cache = PromptCache(tokens_max=100)
    prompts = {text: Prompt(text="", token_ids=tuple(range(20)), tokens=20) for text in "abc"}
    for text in "ab":
        cache.put("e", "m", Submission(prompt=text), prompts[text])
    assert cache.get("e", "m", Submission(prompt="a")) is prompts["a"]
    cache.put("e", "m", Submission(prompt="c"), prompts["c"])
    assert cache.get("e", "m", Submission(prompt="b")) is None
    assert cache.get("e", "m", Submission(prompt="a")) is prompts["a"]
    cache.put("e", "m", Submission(prompt="d"), Prompt(token_ids=tuple(range(101)), tokens=101))
    assert cache.get("e", "m", Submission(prompt="d")) is None
    assert cache.get("e", "m", Submission(prompt="c")) is prompts["c"]
    assert cache.get("other", "m", Submission(prompt="c")) is None


@pytest.mark.parametrize(("length", "asked"), [(100, 0), (4000, 0), (4096, 1)])
@pytest.mark.asyncio
async def test_an_engine_that_reads_text_is_asked_only_about_prompts_that_may_not_fit(length: int, asked: int) -> None:
    engine = ScriptedEngine()
    engine.takes_ids = False
    counting = Counting(engine)
    submission = Submission(prompt="x" * length)
    prompt = await Renderer().render(submission, engine, ModelInfo("scripted", 4096 + 512))
    assert (counting.asked, prompt.text) == (asked, submission.prompt)


@pytest.mark.asyncio
async def test_an_echo_needs_the_prompts_text() -> None:
    engine = ScriptedEngine()
    echo = Output(echo=True)
    assert (await render(Submission(prompt_ids=(97, 98), output=echo), engine, None)).text == "ab"
    engine.takes_ids = False
    assert (await render(Submission(messages=(HI,), output=echo), engine, None)).text == "user: hi\nassistant: "
    engine.tokenizer = None
    assert (await render(Submission(prompt="ab", output=echo), engine, None)).text == "ab"
    with pytest.raises(InvalidRequestError) as caught:
        await render(Submission(messages=(HI,), output=echo), engine, None)
    assert caught.value.violations[0].field == "output.echo"


ALIEN = {
    "prompt_ids": Submission(prompt_ids=(1, 99)),
    "sampling.logit_bias": Submission(prompt="a", sampling=Sampling(logit_bias=((99, 1.0),))),
    "stopping.stop_token_ids": Submission(prompt="a", stopping=Stopping(stop_token_ids=(99,))),
    "output.logprobs.token_ids": Submission(prompt="a", output=Output(logprobs=Logprobs(token_ids=(99,)))),
    "output.prompt_logprobs.token_ids": Submission(
        prompt="a", output=Output(prompt_logprobs=Logprobs(token_ids=(99,)))
    ),
}


@pytest.mark.parametrize(("field", "submission"), ALIEN.items(), ids=ALIEN.keys())
@pytest.mark.asyncio
async def test_a_token_id_that_the_model_does_not_have_is_refused_by_its_field(
    field: str, submission: Submission
) -> None:
    engine = ScriptedEngine()
    await Renderer().render(submission, engine, ModelInfo("scripted", None, 100))
    with pytest.raises(InvalidRequestError) as caught:
        await Renderer().render(submission, engine, ModelInfo("scripted", None, 99))
    assert caught.value.violations[0].field == field
    assert caught.value.metadata == {"limit": "99"}
