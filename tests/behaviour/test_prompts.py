"""What an engine goes on from, and what it must never be given."""

from typing import Any

import grpc
import pytest

from behaviour.backend import PROMPT, TOKENS, Backend, asked, chat, words
from harness.refusals import refused
from tokenwire.v1.generate_service_pb2 import TokenIds
from tokenwire.v1.message_pb2 import ROLE_SYSTEM, ROLE_USER, Message
from tokenwire.v1.model_service_pb2 import DetokenizeRequest, TokenizeRequest
from tokenwire.v1.output_pb2 import Output
from tokenwire.v1.sampling_pb2 import Sampling, Stopping


@pytest.mark.asyncio
async def test_a_prompt_streams_and_its_tokens_are_counted_and_told(backend: Backend) -> None:
    answer = await backend.stream(asked(output=Output(token_ids=True)))
    assert len(words(answer.text())) > 2
    assert answer.usage.output_tokens == TOKENS == len(answer.token_ids())
    assert answer.reason() == "LENGTH"
    assert backend.written(answer) > 2
    counted = await backend.service.models.Tokenize(TokenizeRequest(text=PROMPT))
    assert answer.usage.prompt_tokens == counted.count


@pytest.mark.asyncio
async def test_a_unary_call_has_the_streams_text(backend: Backend) -> None:
    result = await backend.unary(asked())
    answer = await backend.stream(asked())
    assert result.choices[0].text == answer.text()
    assert result.usage.output_tokens == answer.usage.output_tokens


@pytest.mark.asyncio
async def test_token_ids_go_on_as_their_text_does(backend: Backend) -> None:
    tokens = await backend.service.models.Tokenize(TokenizeRequest(text=PROMPT))
    with backend.having("prompt_ids"):
        ids = TokenIds(ids=[token.id for token in tokens.tokens])
        by_ids = await backend.stream(asked(prompt_ids=ids))
        if backend.name != "scripted":
            assert by_ids.text() == (await backend.stream(asked())).text()
        assert by_ids.usage.prompt_tokens == tokens.count


@pytest.mark.asyncio
async def test_a_chat_streams_and_its_whole_prompt_is_counted(backend: Backend) -> None:
    request = chat("What is the capital of France?")
    answer = await backend.stream(request)
    assert answer.text()
    tokens = await backend.service.models.Tokenize(TokenizeRequest(messages=list(request.messages)))
    assert answer.usage.prompt_tokens == tokens.count > 8


@pytest.mark.asyncio
async def test_system_and_earlier_turns_are_part_of_the_prompt(backend: Backend) -> None:
    short = await backend.stream(chat("Hi."))
    long = await backend.stream(chat("Hi.", "Hello!", "How are you?"))
    told = await backend.stream(chat("Hi.", system="You are a pirate who loves the sea."))
    by_message = chat(
        messages=[
            Message(role=ROLE_SYSTEM, content="You are a pirate who loves the sea."),
            Message(role=ROLE_USER, content="Hi."),
        ]
    )
    assert long.usage.prompt_tokens > short.usage.prompt_tokens
    assert told.usage.prompt_tokens != short.usage.prompt_tokens
    assert (await backend.stream(by_message)).usage.prompt_tokens == told.usage.prompt_tokens


@pytest.mark.asyncio
async def test_the_prompt_comes_before_the_answer_when_asked_for(backend: Backend) -> None:
    with backend.having("output.echo"):
        plain, echoed = await backend.stream(asked()), await backend.stream(asked(output=Output(echo=True)))
        assert echoed.text() == PROMPT + plain.text()
        assert echoed.usage.output_tokens == plain.usage.output_tokens
        messages = await backend.stream(chat("Hi.", output=Output(echo=True)))
        assert "Hi." in messages.text()


@pytest.mark.asyncio
async def test_text_becomes_tokens_and_text_again(backend: Backend) -> None:
    tokens = await backend.service.models.Tokenize(TokenizeRequest(text="Grüße, 世界! 👩‍🚀"))
    assert tokens.count == len(tokens.tokens) > 3
    assert tokens.context_window == backend.window
    text = await backend.service.models.Detokenize(DetokenizeRequest(token_ids=[one.id for one in tokens.tokens]))
    assert text.text == "Grüße, 世界! 👩‍🚀"


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["text", "ids", "chat"])
async def test_a_prompt_over_the_window_is_refused_with_limit_and_size(backend: Backend, form: str) -> None:
    text = "one two three " * (backend.window // 2)
    tokens = await backend.service.models.Tokenize(TokenizeRequest(text=text))
    ids = TokenIds(ids=[token.id for token in tokens.tokens])
    requests: dict[str, Any] = {"text": asked(text), "ids": asked(prompt_ids=ids), "chat": chat(text)}
    told = await refused(backend.unary(requests[form]))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert told.metadata["limit"] == str(backend.window)
    assert int(told.metadata["got"]) >= tokens.count
    assert not backend.service.app.runs.list("local")


@pytest.mark.asyncio
async def test_an_answer_that_fills_the_window_says_so(backend: Backend) -> None:
    one = (await backend.service.models.Tokenize(TokenizeRequest(text=" a"))).tokens[0].id
    ids = TokenIds(ids=[one] * (backend.window - 6))
    with backend.having("prompt_ids", "stopping.ignore_eos"):
        answer = await backend.stream(asked(prompt_ids=ids, stopping=Stopping(max_tokens=100, ignore_eos=True)))
        assert answer.reason() == "CONTEXT_LENGTH"
        assert 1 <= answer.usage.output_tokens <= 7


@pytest.mark.asyncio
@pytest.mark.parametrize("token_id", [4_000_000_000, 99_999_999])
async def test_a_token_id_that_the_model_does_not_have_is_refused(backend: Backend, token_id: int) -> None:
    if backend.name == "scripted":
        pytest.skip("it has a token for each number")
    told = await refused(backend.unary(asked(prompt_ids=TokenIds(ids=[token_id]))))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await backend.unary(asked())).choices[0].text


@pytest.mark.asyncio
async def test_an_unknown_model_is_not_found(backend: Backend) -> None:
    request = asked()
    request.model = "nobody-has-it"
    told = await refused(backend.unary(request))
    assert told.code is grpc.StatusCode.NOT_FOUND
    assert told.reason == "MODEL_NOT_FOUND"


@pytest.mark.asyncio
async def test_characters_of_several_tokens_come_whole(backend: Backend) -> None:
    request = asked(
        "Emoji: 👩‍🚀 🌍 世界 👩‍🚀 🌍 世界 👩‍🚀 🌍", sampling=Sampling(temperature=0), stopping=Stopping(max_tokens=24)
    )
    answer = await backend.stream(request)
    assert "\N{REPLACEMENT CHARACTER}" not in answer.text()
    channel = answer.events[-1].end.channels[0]
    assert channel.bytes == len(answer.text().encode())
