"""Prompts: by the engine's own means, within its window."""

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Message, Role, Submission
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.render.renderer import render

HI = Message(role=Role.USER, content="hi")


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
