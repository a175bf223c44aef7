"""What is told beside the text: ids and log probabilities."""

from collections.abc import Sequence

import pytest

from behaviour.backend import PROMPT, TOKENS, Backend, asked, chat
from tokenwire.v1.event_pb2 import TokenLogprob
from tokenwire.v1.model_service_pb2 import DetokenizeRequest, TokenizeRequest
from tokenwire.v1.output_pb2 import Logprobs, Output
from tokenwire.v1.sampling_pb2 import Stopping


def told(answer_events: Sequence[object]) -> list[TokenLogprob]:
    return [one for event in answer_events for one in event.delta.logprobs]  # type: ignore[attr-defined]


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["prompt", "chat"])
async def test_each_token_has_its_log_probability_and_its_rivals(backend: Backend, form: str) -> None:
    output = Output(logprobs=Logprobs(top_n=3), token_ids=True)
    with backend.having("output.logprobs.top_n"):
        answer = await backend.stream(asked(output=output) if form == "prompt" else chat("Say hi.", output=output))
        logprobs = told(answer.events)
        assert [one.token_id for one in logprobs] == answer.token_ids()[: len(logprobs)]
        assert len(logprobs) >= TOKENS - 1
        for one in logprobs:
            assert -100 < one.logprob <= 0
            assert len(one.top) == 3
            assert [top.logprob for top in one.top] == sorted((top.logprob for top in one.top), reverse=True)
            # Greedy: the chosen one is the best one.
            assert one.top[0].token_id == one.token_id
            assert one.top[0].logprob == pytest.approx(one.logprob, abs=1e-3)
        names = [top.token for one in logprobs for top in one.top]
        # A special token has no text of its own.
        assert sum(map(bool, names)) > len(names) // 2
        text = await backend.service.models.Detokenize(DetokenizeRequest(token_ids=[one.token_id for one in logprobs]))
        assert text.text == "".join(one.token for one in logprobs)


@pytest.mark.asyncio
async def test_the_chosen_tokens_alone_have_no_rivals(backend: Backend) -> None:
    with backend.having("output.logprobs.top_n"):
        logprobs = told((await backend.stream(asked(output=Output(logprobs=Logprobs())))).events)
        assert len(logprobs) == TOKENS
        assert not any(one.top or one.given for one in logprobs)


@pytest.mark.asyncio
async def test_given_tokens_are_told_in_their_order(backend: Backend) -> None:
    with backend.having("output.logprobs.token_ids"):
        texts = (" London", " Paris", " Berlin")
        ids = [(await backend.service.models.Tokenize(TokenizeRequest(text=text))).tokens[0].id for text in texts]
        request = asked(output=Output(logprobs=Logprobs(token_ids=ids)), stopping=Stopping(max_tokens=2))
        first = told((await backend.stream(request)).events)[0]
        assert [one.token_id for one in first.given] == ids
        assert first.given[1].logprob > max(first.given[0].logprob, first.given[2].logprob)
        assert not first.top
        if first.token_id == ids[1]:
            assert first.given[1].logprob == pytest.approx(first.logprob, abs=1e-3)


@pytest.mark.asyncio
async def test_all_tokens_are_told(backend: Backend) -> None:
    request = asked(output=Output(logprobs=Logprobs(all=True)), stopping=Stopping(max_tokens=1))
    with backend.having("output.logprobs.all"):
        if backend.name == "vllm":
            # Its server allows 20 unless it was started with more.
            from harness.refusals import refused

            refusal = await refused(backend.unary(request))
            assert refusal.violations[0][0] == "output.logprobs"
            backend.outcome = "needs --max-logprobs -1"
            return
        (first,) = told((await backend.stream(request)).events)
        assert len(first.top) > 40_000
        assert len({one.token_id for one in first.top}) == len(first.top)


@pytest.mark.asyncio
async def test_the_prompt_has_log_probabilities_too(backend: Backend) -> None:
    tokens = (await backend.service.models.Tokenize(TokenizeRequest(text=PROMPT))).tokens
    with backend.having("output.prompt_logprobs.top_n"):
        result = await backend.unary(asked(output=Output(prompt_logprobs=Logprobs(top_n=2))))
        logprobs = result.prompt_logprobs
        assert [one.token_id for one in logprobs] == [token.id for token in tokens]
        assert not logprobs[0].HasField("logprob")
        assert all(one.logprob < 0 and len(one.top) >= 2 for one in logprobs[1:])
        assert "".join(one.token for one in logprobs) == PROMPT
        assert not result.choices[0].logprobs


@pytest.mark.asyncio
async def test_given_tokens_are_told_of_the_prompt(backend: Backend) -> None:
    with backend.having("output.prompt_logprobs.token_ids"):
        ids = [5, 7]
        result = await backend.unary(asked(output=Output(prompt_logprobs=Logprobs(token_ids=ids))))
        assert all([given.token_id for given in one.given] == ids for one in result.prompt_logprobs[1:])


@pytest.mark.asyncio
async def test_the_whole_text_comes_again_at_the_end_when_asked_for(backend: Backend) -> None:
    answer = await backend.stream(asked(output=Output(full_text=True)))
    assert answer.events[-1].end.channels[0].text == answer.text()
