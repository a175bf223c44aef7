"""What the embedded engine does beyond plain text, with its real child and its real model."""

import re
from pathlib import Path

import pytest

from engines.embedded import CONTEXT, SLOTS, job, run, slots_are_freed, started, tokenizer_of
from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import PrefillProgress, PromptRead
from tokenwire.domain.request import Constraint, Logprobs, Output, Sampling, Stopping, Submission
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine

pytestmark = [pytest.mark.llamacpp, pytest.mark.timeout(180)]

GREEDY = Sampling(temperature=0.0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "regex", [r"[0-9]{3}/[a-z]{2}", r"(yes|no)\n(maybe|\d\d)", "a\n|[^\\x00-\\x7f]{2}", r"\p{Lu}[a-z]{1,4}!"]
)
async def test_an_answer_matches_its_regular_expression(engine: LlamaCppEngine, regex: str) -> None:
    result = await run(
        engine, max_tokens=20, constraint=Constraint(regex=regex), sampling=Sampling(n=2, temperature=2.0)
    )
    for choice in range(2):
        assert re.fullmatch(regex.replace(r"\p{Lu}", "[^\\W\\d_]"), result.text(choice))
        assert result.done(choice).finish_reason is FinishReason.STOP


@pytest.mark.asyncio
@pytest.mark.parametrize("regex", ["(a", "(?=a)b", r"(.)\1", r"\bfoo", "[", "(a{1000}){1000}", r"a\Zb"])
async def test_a_regular_expression_that_cannot_be_kept_is_refused_and_not_ignored(
    engine: LlamaCppEngine, regex: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await run(engine, constraint=Constraint(regex=regex))
    assert caught.value.violations[0].field == "constraint.regex"


@pytest.mark.asyncio
async def test_an_answer_that_could_go_on_may_end_as_the_model_ends_one(engine: LlamaCppEngine) -> None:
    chat = "<|im_start|>user\nSay A<|im_end|>\n<|im_start|>assistant\nA"
    sampling = Sampling(temperature=0.0, logit_bias=((2, 100.0),))
    result = await run(engine, prompt=chat, constraint=Constraint(regex="[A-Z ]*"), sampling=sampling)
    assert result.text() == ""
    assert result.ids() == [2]
    assert result.done().finish_reason is FinishReason.STOP


@pytest.mark.asyncio
async def test_a_stop_token_ends_its_choice_and_frees_the_slots_when_it_was_the_last(engine: LlamaCppEngine) -> None:
    whole = await run(engine, max_tokens=16, sampling=GREEDY)
    stop = whole.ids()[5]
    before = whole.ids().index(stop)
    result = await run(engine, max_tokens=CONTEXT - 20, sampling=GREEDY, stopping=Stopping(stop_token_ids=(7, stop)))
    assert result.text() == await tokenizer_of(engine).detokenize(whole.ids()[:before])
    assert result.ids() == whole.ids()[: before + 1]
    assert result.done().finish_reason is FinishReason.STOP_SEQUENCE
    assert result.done().matched_stop == stop
    assert result.totals.output_tokens == before + 1
    await slots_are_freed(engine)


@pytest.mark.asyncio
async def test_a_choice_at_its_stop_token_leaves_the_others_alone(engine: LlamaCppEngine) -> None:
    sampling = Sampling(n=2, seed=40, temperature=1.0)
    whole = await run(engine, max_tokens=12, sampling=sampling)
    stop = next(one for one in whole.ids(0) if one not in whole.ids(1))
    result = await run(engine, max_tokens=12, sampling=sampling, stopping=Stopping(stop_token_ids=(stop,)))
    assert result.text(1) == whole.text(1)
    assert whole.text(0).startswith(result.text(0))
    assert result.done(0).matched_stop == stop
    assert result.done(1).finish_reason is FinishReason.LENGTH


@pytest.mark.asyncio
async def test_a_stop_string_is_kept_where_it_is_asked_for(engine: LlamaCppEngine) -> None:
    result = await run(
        engine,
        max_tokens=40,
        constraint=Constraint(grammar='root ::= " one two three four"'),
        stopping=Stopping(stop=("thr",), include_stop=True),
    )
    assert result.text() == " one two thr"
    assert result.done().matched_stop == "thr"


@pytest.mark.asyncio
async def test_log_probabilities_of_tokens_by_id_come_in_the_order_of_the_request(engine: LlamaCppEngine) -> None:
    asked = (49_151, 28, 0, 28)
    result = await run(
        engine, max_tokens=2, sampling=GREEDY, output=Output(logprobs=Logprobs(token_ids=asked, top_n=2))
    )
    for piece in result.pieces():
        (told,) = piece.logprobs
        assert tuple(one.token_id for one in told.given) == asked
        assert all(one.logprob is not None and one.logprob <= 0 for one in told.given)
        assert len(told.top) == 2
        assert told.top[0].token_id == told.token_id


@pytest.mark.asyncio
async def test_all_log_probabilities_are_those_of_a_distribution(engine: LlamaCppEngine) -> None:
    result = await run(engine, max_tokens=1, output=Output(logprobs=Logprobs(all=True)))
    top = result.pieces()[0].logprobs[0].top
    assert len({one.token_id for one in top}) == 49_152
    assert sum(2.718281828 ** (one.logprob or 0.0) for one in top) == pytest.approx(1.0, abs=0.01)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("output.logprobs.token_ids", {"output": Output(logprobs=Logprobs(token_ids=(49_152,)))}),
        ("stopping.stop_token_ids", {"stopping": Stopping(stop_token_ids=(2**31,))}),
        ("sampling.n", {"sampling": Sampling(n=SLOTS + 1)}),
    ],
)
async def test_what_the_model_does_not_have_is_refused_before_there_is_a_run(
    engine: LlamaCppEngine, field: str, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        engine.vet(Submission(prompt="a", **options))  # type: ignore[arg-type]
    assert caught.value.violations[0].field == field


@pytest.mark.asyncio
async def test_a_long_prompt_is_told_in_several_steps(cache: Path, tmp_path: Path) -> None:
    ids = tuple(100 + place * 7919 % 40_000 for place in range(1100))
    async with started(cache, tmp_path, slots=1, context_per_slot=1200) as engine:
        result = await run(engine, max_tokens=1, prompt_ids=ids)
        steps = [item for item in result.generated if isinstance(item, PrefillProgress)]
        assert [one.done_tokens for one in steps] == [0, 512, 1024]
        assert {(one.prompt_tokens, one.cached_tokens) for one in steps} == {(1100, 0)}
        assert result.prompt == PromptRead(prompt_tokens=1100, cached_tokens=0, token_ids=ids)
        one = await job(engine, Submission(prompt_ids=ids))
        assert one.prompt.token_ids == ids
