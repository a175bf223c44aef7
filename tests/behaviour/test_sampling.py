"""How tokens are chosen: each field must change what the model writes, in its own way."""

import pytest

from behaviour.backend import PROMPT, TOKENS, Backend, asked, words
from tokenwire.v1.model_service_pb2 import TokenizeRequest
from tokenwire.v1.output_pb2 import Output
from tokenwire.v1.run_pb2 import KvOptions, RunOptions
from tokenwire.v1.sampling_pb2 import (
    SAMPLING_PRESET_BALANCED,
    SAMPLING_PRESET_CREATIVE,
    SAMPLING_PRESET_DETERMINISTIC,
    SAMPLING_PRESET_PRECISE,
    BeamSearch,
    LogitBias,
    Sampling,
    Stopping,
)

# With each of these nothing but the most probable token is left, whatever the temperature.
ONE_LEFT = {
    "top_k": Sampling(temperature=1.5, top_k=1),
    "top_p": Sampling(temperature=1.5, top_p=1e-6),
    "min_p": Sampling(temperature=1.5, min_p=1.0),
    "preset": Sampling(preset=SAMPLING_PRESET_DETERMINISTIC),
}
REPEATING = "one two one two one two one two one two"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ONE_LEFT)
async def test_the_most_probable_token_is_taken(backend: Backend, name: str) -> None:
    # A penalty of the embedded model's own would count as well.
    sampling = Sampling(repetition_penalty=1.0)
    sampling.MergeFrom(ONE_LEFT[name])
    with backend.having(f"sampling.{name}"):
        greedy = await backend.greedy(sampling=Sampling(temperature=0, repetition_penalty=1.0))
        assert (await backend.stream(asked(sampling=sampling))).text() == greedy.text()


@pytest.mark.asyncio
async def test_temperature_lets_less_probable_tokens_in(backend: Backend) -> None:
    texts = {(await backend.stream(asked(sampling=backend.seeded(seed, temperature=1.8)))).text() for seed in range(3)}
    assert len(texts) > 1


@pytest.mark.asyncio
async def test_a_seed_gives_the_same_text_again(backend: Backend) -> None:
    with backend.having("sampling.seed"):
        texts = [
            (await backend.stream(asked(sampling=Sampling(temperature=1.5, seed=seed)))).text() for seed in (7, 7, 8)
        ]
        assert texts[0] == texts[1] != texts[2]


@pytest.mark.asyncio
@pytest.mark.parametrize("preset", [SAMPLING_PRESET_BALANCED, SAMPLING_PRESET_CREATIVE, SAMPLING_PRESET_PRECISE])
async def test_presets_write(backend: Backend, preset: int) -> None:
    with backend.having("sampling.preset"):
        answer = await backend.stream(asked(sampling=backend.seeded(1, preset=preset)))
        assert 1 <= answer.usage.output_tokens <= TOKENS
        assert answer.text()


@pytest.mark.asyncio
@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
async def test_a_penalty_ends_a_repetition(backend: Backend, penalty: str) -> None:
    stopping = Stopping(max_tokens=16)
    with backend.having(f"sampling.{penalty}"):
        neutral = Sampling(temperature=0, repetition_penalty=1.0)
        plain = await backend.stream(asked(REPEATING, sampling=neutral, stopping=stopping))
        against = Sampling(temperature=0, repetition_penalty=1.0)
        setattr(against, penalty, 2.0)
        fresh = await backend.stream(asked(REPEATING, sampling=against, stopping=stopping))
        assert len(set(words(fresh.text()))) > len(set(words(plain.text())))


@pytest.mark.asyncio
async def test_a_bias_brings_a_token_or_keeps_it_away(backend: Backend) -> None:
    with backend.having("sampling.logit_bias"):
        token = (await backend.service.models.Tokenize(TokenizeRequest(text=" cheese"))).tokens[0].id
        forced = Sampling(temperature=0, logit_bias=[LogitBias(token_id=token, bias=100)])
        answer = await backend.stream(asked(sampling=forced, output=Output(token_ids=True)))
        assert set(answer.token_ids()) == {token}
        first = (await backend.greedy(output=Output(token_ids=True))).token_ids()[0]
        banned = Sampling(temperature=0, logit_bias=[LogitBias(token_id=first, bias=-100)])
        assert first not in (await backend.stream(asked(sampling=banned, output=Output(token_ids=True)))).token_ids()


@pytest.mark.asyncio
async def test_several_choices_come_apart(backend: Backend) -> None:
    with backend.having("sampling.n"):
        answer = await backend.stream(asked("Once upon", sampling=backend.seeded(3, temperature=1.5, n=2)))
        assert answer.text(0) != answer.text(1)
        assert answer.usage.output_tokens == 2 * TOKENS
        assert [one.choice for one in answer.events[-1].end.choices] == [0, 1]
        counted = await backend.service.models.Tokenize(TokenizeRequest(text="Once upon"))
        assert answer.usage.prompt_tokens == counted.count


@pytest.mark.asyncio
async def test_beams_are_searched_for_a_unary_call(backend: Backend) -> None:
    beams = BeamSearch(width=3, length_penalty=1.0)
    with backend.having("sampling.beam_search.width"):
        result = await backend.unary(asked(sampling=Sampling(temperature=0, n=2, beam_search=beams)))
        assert len({choice.text for choice in result.choices}) == 2
        assert result.usage.output_tokens >= TOKENS


@pytest.mark.asyncio
async def test_a_priority_reaches_the_engine(backend: Backend) -> None:
    with backend.having("run.priority"):
        answer = await backend.stream(asked(run=RunOptions(priority=5)))
        assert answer.text() == (await backend.stream(asked())).text()


@pytest.mark.asyncio
async def test_a_salt_keeps_prefixes_apart_and_is_shared_by_those_that_know_it(backend: Backend) -> None:
    prompt = " ".join(f"item {number}" for number in range(300)) + PROMPT
    once = Stopping(max_tokens=1)
    with backend.having("kv.cache_salt"):
        cached = []
        for salt in ("a", "a", "b"):
            request = asked(prompt, stopping=once, kv=KvOptions(cache_salt=f"{salt}{id(backend)}"))
            cached.append((await backend.stream(request)).usage.cached_tokens)
        assert cached[0] == cached[2] == 0
        assert cached[1] > 500


@pytest.mark.asyncio
async def test_a_bypass_reads_the_whole_prompt_again(backend: Backend) -> None:
    prompt = " ".join(f"part {number}" for number in range(min(300, backend.window // 6)))
    once = Stopping(max_tokens=1)
    with backend.having("kv.bypass"):
        await backend.stream(asked(prompt, stopping=once))
        warm = (await backend.stream(asked(prompt, stopping=once))).usage
        again = (await backend.stream(asked(prompt, stopping=once, kv=KvOptions(bypass=True)))).usage
        assert again.cached_tokens == 0
        assert warm.cached_tokens > warm.prompt_tokens // 2
