"""What the embedded engine answers, with its real child and its real model."""

import json
from contextlib import aclosing
from dataclasses import replace

import pytest

from engines.embedded import CONTEXT, SLOTS, Result, job, run, tokenizer_of
from harness.telling import told_by
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.generation import PrefillProgress, Prompt, PromptRead, Totals
from tokenwire.domain.request import (
    Constraint,
    KvOptions,
    Logprobs,
    Message,
    Output,
    Role,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
)
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine

pytestmark = [pytest.mark.llamacpp, pytest.mark.timeout(180)]

GREEDY = Sampling(temperature=0.0)


@pytest.mark.asyncio
async def test_tokens_are_streamed_with_their_ids_and_counts(engine: LlamaCppEngine) -> None:
    result = await run(engine, sampling=GREEDY)
    assert [type(item) for item in result.generated[:2]] == [PrefillProgress, PromptRead]
    assert result.prompt.prompt_tokens == 4
    assert len(result.pieces()) == 8
    assert [piece.token_count for piece in result.pieces()] == [1] * 8
    assert await tokenizer_of(engine).detokenize(result.ids()) == result.text()
    assert result.done().finish_reason is FinishReason.LENGTH
    assert result.totals == Totals(prompt_tokens=4, cached_tokens=0, output_tokens=8)


@pytest.mark.asyncio
async def test_choices_of_one_run_differ_and_each_is_what_its_seed_gives(engine: LlamaCppEngine) -> None:
    both = await run(engine, max_tokens=12, sampling=Sampling(n=2, seed=40, temperature=1.0))
    alone = [await run(engine, max_tokens=12, sampling=Sampling(seed=40 + i, temperature=1.0)) for i in range(2)]
    assert both.text(0) != both.text(1)
    assert [both.text(0), both.text(1)] == [alone[0].text(), alone[1].text()]
    assert both.totals.output_tokens == 24
    assert sum(isinstance(item, PromptRead) for item in both.generated) == 1


@pytest.mark.asyncio
async def test_more_choices_than_slots_are_refused_by_name(engine: LlamaCppEngine) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await run(engine, sampling=Sampling(n=SLOTS + 1))
    assert caught.value.violations[0].field == "sampling.n"
    assert caught.value.metadata == {"limit": str(SLOTS), "got": str(SLOTS + 1)}


@pytest.mark.asyncio
async def test_a_seed_gives_the_same_text_again_and_another_one_another_text(engine: LlamaCppEngine) -> None:
    texts = [(await run(engine, max_tokens=16, sampling=Sampling(seed=seed))).text() for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.asyncio
async def test_the_deterministic_preset_needs_no_seed(engine: LlamaCppEngine) -> None:
    chosen = Sampling(preset=SamplingPreset.DETERMINISTIC)
    texts = {(await run(engine, max_tokens=16, sampling=chosen)).text() for _ in range(3)}
    assert len(texts) == 1


@pytest.mark.asyncio
async def test_a_stop_string_ends_the_choice_and_is_not_told(engine: LlamaCppEngine) -> None:
    result = await run(
        engine,
        max_tokens=40,
        constraint=Constraint(grammar='root ::= " one two three four"'),
        stopping=Stopping(stop=("three",)),
    )
    assert result.text() == " one two "
    assert result.done().finish_reason is FinishReason.STOP_SEQUENCE
    assert result.done().matched_stop == "three"


@pytest.mark.asyncio
async def test_half_a_stop_string_at_the_limit_is_told(engine: LlamaCppEngine) -> None:
    seven = Constraint(grammar='root ::= " 7 8 9"')
    result = await run(engine, max_tokens=4, constraint=seven, stopping=Stopping(stop=("8 9",)))
    assert result.text() == " 7 8"


@pytest.mark.asyncio
async def test_the_end_of_the_window_is_told_apart_from_a_limit(engine: LlamaCppEngine) -> None:
    full = await run(engine, max_tokens=CONTEXT, stopping=Stopping(ignore_eos=True))
    assert full.done().finish_reason is FinishReason.CONTEXT_LENGTH
    assert full.totals.output_tokens == CONTEXT - 4


@pytest.mark.asyncio
async def test_a_prompt_longer_than_the_window_is_refused_with_both_figures(engine: LlamaCppEngine) -> None:
    with pytest.raises(EngineError) as caught:
        await run(engine, prompt="word " * CONTEXT)
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED")
    assert caught.value.metadata["limit"] == str(CONTEXT)


@pytest.mark.asyncio
async def test_an_answer_follows_its_json_schema(engine: LlamaCppEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    result = await run(engine, max_tokens=60, constraint=Constraint(json_schema=json.dumps(schema)))
    told = json.loads(result.text())
    assert told.keys() == {"name", "age"}
    assert told["name"] in ("Ada", "Bob")
    assert 1 <= told["age"] <= 9


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "schema", ['{"type":"bogus"}', '{"not":{"type":"string"}}', '{"type":"string","pattern":"(?<=x)y"}']
)
async def test_a_schema_that_cannot_be_enforced_is_refused_and_not_ignored(engine: LlamaCppEngine, schema: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await run(engine, constraint=Constraint(json_schema=schema))
    assert caught.value.violations[0].field == "constraint.json_schema"


@pytest.mark.asyncio
async def test_a_json_object_is_an_object(engine: LlamaCppEngine) -> None:
    result = await run(engine, max_tokens=2, constraint=Constraint(json_object=True))
    assert result.text().lstrip().startswith("{")


@pytest.mark.asyncio
async def test_a_choice_is_one_of_the_texts_and_ids_are_told_only_where_they_make_the_text(
    engine: LlamaCppEngine,
) -> None:
    result = await run(engine, max_tokens=20, constraint=Constraint(choice=('🦜 "é"\n', "🦜\\☃")))
    assert result.text() in ('🦜 "é"\n', "🦜\\☃")
    assert {len(piece.token_ids) for piece in result.pieces() if len(piece.token_ids) != piece.token_count} <= {0}
    for piece in result.pieces():
        if piece.token_ids and piece.text:
            assert await tokenizer_of(engine).detokenize(piece.token_ids) == piece.text
    assert result.done().finish_reason is FinishReason.STOP


@pytest.mark.asyncio
async def test_log_probabilities_are_those_of_the_model_whatever_the_sampling(engine: LlamaCppEngine) -> None:
    asked = Output(logprobs=Logprobs(top_n=3))
    told: list[TokenLogprob] = []
    for sampling in (GREEDY, Sampling(temperature=2.0, top_k=1, repetition_penalty=1.9)):
        result = await run(engine, max_tokens=1, sampling=sampling, output=asked)
        told.append(result.pieces()[0].logprobs[0])
    values = [[one.logprob or 0.0 for one in each.top] for each in told]
    assert values[0] == pytest.approx(values[1], abs=0.01)
    assert told[0].top[0].token_id == told[0].token_id
    assert values[0] == sorted(values[0], reverse=True)
    assert len(told[0].top) == 3


@pytest.mark.asyncio
async def test_log_probabilities_of_the_chosen_token_alone_have_no_others(engine: LlamaCppEngine) -> None:
    result = await run(engine, max_tokens=2, output=Output(logprobs=Logprobs(top_n=0)))
    assert [(len(piece.logprobs), piece.logprobs[0].top) for piece in result.pieces()] == [(1, ()), (1, ())]
    assert "".join(piece.logprobs[0].token for piece in result.pieces()) == result.text()


@pytest.mark.asyncio
async def test_a_prompt_that_was_read_is_cached_unless_the_cache_is_bypassed(engine: LlamaCppEngine) -> None:
    prompt = "The history of the lighthouse begins long before the harbour was built"
    cold, warm, bypassed = [
        await run(engine, prompt=prompt, max_tokens=1, kv=kv)
        for kv in (KvOptions(), KvOptions(), KvOptions(bypass=True))
    ]
    tokens = cold.prompt.prompt_tokens
    assert [one.prompt.cached_tokens for one in (cold, warm, bypassed)] == [0, tokens - 1, 0]
    assert warm.totals.cached_tokens == tokens - 1


@pytest.mark.asyncio
async def test_a_prompts_ids_are_those_that_the_server_itself_reads_in_its_text(engine: LlamaCppEngine) -> None:
    text = "<|im_start|>user\nThe café of the 🦜 opens at 9.<|im_end|>\n<|im_start|>assistant\n"
    one = await job(engine, Submission(prompt=text, stopping=Stopping(max_tokens=1)))
    assert one.prompt.token_ids[0] == 1
    counts = []
    for prompt in (Prompt(text=text), one.prompt):
        async with aclosing(told_by(engine, replace(one, prompt=prompt))) as batches:
            counts.append(Result([item async for batch in batches for item in batch]).prompt)
    # All but the last token, which is always read: had one id differed, fewer would be cached.
    assert counts[0].prompt_tokens == counts[1].prompt_tokens == len(one.prompt.token_ids)
    assert counts[1].cached_tokens == len(one.prompt.token_ids) - 1


@pytest.mark.asyncio
async def test_a_chat_is_rendered_by_the_models_template_with_the_assistants_turn_open(engine: LlamaCppEngine) -> None:
    messages = (
        Message(role=Role.SYSTEM, content="Be brief."),
        Message(role=Role.USER, content="Hi"),
        Message(role=Role.ASSISTANT, content="Hello."),
    )
    prompt = await tokenizer_of(engine).prompt(Submission(messages=messages))
    assert prompt.text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.tokens == len(prompt.token_ids) == len(await tokenizer_of(engine).tokenize(prompt.text or ""))


@pytest.mark.asyncio
async def test_tokens_have_the_text_that_is_theirs_alone(engine: LlamaCppEngine) -> None:
    tokens = await tokenizer_of(engine).tokenize("Hello wörld 🦜")
    assert [token.text for token in tokens][:4] == ["Hello", " w", "ör", "ld"]
    assert [token.text for token in tokens][4:] == ["", "", ""]
    assert await tokenizer_of(engine).detokenize([token.id for token in tokens]) == "Hello wörld 🦜"


@pytest.mark.asyncio
@pytest.mark.parametrize("token_id", [-1, 49_152, 2**32 + 1])
async def test_ids_that_the_model_does_not_have_are_refused_by_name(engine: LlamaCppEngine, token_id: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await tokenizer_of(engine).detokenize([504, token_id])
    assert caught.value.violations[0].field == "token_ids"
    with pytest.raises(InvalidRequestError) as caught:
        await run(engine, prompt_ids=(504, token_id))
    assert caught.value.violations[0].field == "prompt_ids"
    with pytest.raises(InvalidRequestError) as caught:
        await run(engine, sampling=Sampling(logit_bias=((token_id, 1.0),)))
    assert caught.value.violations[0].field == "sampling.logit_bias"
