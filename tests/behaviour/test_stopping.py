"""When a choice stops, and what is told of it."""

import pytest

from behaviour.backend import Backend, asked, chat
from tokenwire.v1.model_service_pb2 import TokenizeRequest
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

COUNTING = "1, 2, 3, 4,"


def counting(**fields: object) -> Stopping:
    return Stopping(max_tokens=30, **fields)  # type: ignore[arg-type]


@pytest.mark.asyncio
@pytest.mark.parametrize("tokens", [1, 3])
async def test_a_choice_has_no_more_tokens_than_asked_for(backend: Backend, tokens: int) -> None:
    answer = await backend.stream(asked(stopping=Stopping(max_tokens=tokens)))
    assert (answer.usage.output_tokens, answer.reason()) == (tokens, "LENGTH")


@pytest.mark.asyncio
async def test_the_stop_string_that_was_met_is_told_and_left_out(backend: Backend) -> None:
    with backend.having("stopping.stop"):
        answer = await backend.stream(asked(COUNTING, stopping=counting(stop=["never", "7"])))
        assert answer.reason() == "STOP_SEQUENCE"
        assert answer.events[-1].end.choices[0].matched_stop.text == "7"
        assert "6" in answer.text()
        assert "7" not in answer.text()


@pytest.mark.asyncio
async def test_the_stop_string_is_kept_when_asked_for(backend: Backend) -> None:
    with backend.having("stopping.stop", "stopping.include_stop"):
        answer = await backend.stream(asked(COUNTING, stopping=counting(stop=["7"], include_stop=True)))
        assert answer.text().endswith("7")
        assert answer.events[-1].end.choices[0].matched_stop.text == "7"


@pytest.mark.asyncio
async def test_the_stop_token_that_was_met_is_told(backend: Backend) -> None:
    with backend.having("stopping.stop_token_ids"):
        seven = (await backend.service.models.Tokenize(TokenizeRequest(text="7"))).tokens[0].id
        answer = await backend.stream(asked(COUNTING, stopping=counting(stop_token_ids=[seven])))
        assert answer.reason() == "STOP_SEQUENCE"
        assert answer.events[-1].end.choices[0].matched_stop.token_id == seven
        assert "7" not in answer.text()


@pytest.mark.asyncio
async def test_each_choice_has_a_stop_of_its_own(backend: Backend) -> None:
    with backend.having("sampling.n", "sampling.top_k", "stopping.stop_token_ids"):
        seven = (await backend.service.models.Tokenize(TokenizeRequest(text="7"))).tokens[0].id
        request = asked(
            COUNTING, stopping=counting(stop_token_ids=[seven]), sampling=Sampling(temperature=1, top_k=1, n=2)
        )
        answer = await backend.stream(request)
        assert {answer.reason(0), answer.reason(1)} == {"STOP_SEQUENCE"}
        assert answer.text(0) == answer.text(1)


@pytest.mark.asyncio
async def test_the_model_ends_its_answer_and_is_kept_from_it(backend: Backend) -> None:
    question = "Say hi."
    limit = Stopping(max_tokens=60)
    if backend.name == "scripted":
        pytest.skip("it always writes to its limit")
    ended = await backend.stream(chat(question, stopping=limit))
    assert ended.reason() == "STOP"
    assert not ended.events[-1].end.choices[0].HasField("matched_stop")
    with backend.having("stopping.ignore_eos"):
        on = await backend.stream(chat(question, stopping=Stopping(max_tokens=60, ignore_eos=True)))
        assert (on.reason(), on.usage.output_tokens) == ("LENGTH", 60)


@pytest.mark.asyncio
async def test_a_choice_has_at_least_as_many_tokens_as_asked_for(backend: Backend) -> None:
    with backend.having("stopping.min_tokens"):
        answer = await backend.stream(chat("Say hi.", stopping=Stopping(max_tokens=70, min_tokens=60)))
        assert answer.usage.output_tokens >= 60


@pytest.mark.asyncio
async def test_special_tokens_are_shown_when_asked_for(backend: Backend) -> None:
    stopping = Stopping(max_tokens=60, ignore_eos=True)
    shown = Stopping(max_tokens=60, ignore_eos=True, skip_special_tokens=False)
    with backend.having("stopping.ignore_eos", "stopping.skip_special_tokens"):
        assert "<|im_end|>" not in (await backend.stream(chat("Say hi.", stopping=stopping))).text()
        assert "<|im_end|>" in (await backend.stream(chat("Say hi.", stopping=shown))).text()
