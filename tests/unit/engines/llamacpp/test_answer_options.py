"""What a request asks of an answer beside its text: tools, reasoning, stop tokens, log probabilities, progress."""

from collections.abc import Sequence

import pytest

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, PrefillProgress, PromptRead, Totals
from tokenwire.domain.request import Logprobs, Output, Sampling, Stopping, Submission
from tokenwire.engines.llamacpp.channels import Layout
from unit.engines.llamacpp.replay import FakeVocabulary, answer_to, channels, done, ids, pieces, replay, text

TOOLS = Layout(run_id="run", calls=True)
CALL = ChannelKind.TOOL_CALL
TWO = Sampling(n=2)
COMMA = 28
CITY = 2240


class Names(FakeVocabulary):
    """Knows the text of some tokens."""

    async def name(self, token_id: int) -> str:
        return {COMMA: ",", CITY: " city", 7: "ab", 8: "<|im_end|>", 9: "\ufffd"}[token_id]

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return "".join([await self.name(one) for one in token_ids])


def heads(batch: list[Generated]) -> list[tuple[Channel, str]]:
    return sorted((item.channel, item.name) for item in batch if isinstance(item, CallHead))


def event(content: str, tokens: list[int], predicted: int, index: int = 0) -> bytes:
    told = f'{{"index":{index},"content":"{content}","tokens":{tokens},"stop":false,"tokens_predicted":{predicted}}}'
    return told.encode()


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(5))
async def test_tool_calls_of_two_choices_read_the_same_in_any_cut(seed: int) -> None:
    asked = Submission(sampling=TWO, output=Output(logprobs=Logprobs(top_n=2)))
    batch = await replay("native-tool-calls.txt", asked, 80, seed=seed, layout=TOOLS)
    assert heads(batch) == [
        (Channel(0, CALL, 0), "get_weather"),
        (Channel(0, CALL, 1), "get_time"),
        (Channel(1, CALL, 0), "get_time"),
        (Channel(1, CALL, 1), "get_weather"),
        (Channel(1, CALL, 2), "get_weather"),
    ]
    assert channels(batch) == {
        Channel(0, CALL, 0): '{"city": "Paris"}',
        Channel(0, CALL, 1): "{}",
        Channel(1, CALL, 0): "{}",
        Channel(1, CALL, 1): '{"city": "Paris"}',
        Channel(1, CALL, 2): '{"city": "Paris"}',
    }
    reasons = {choice: one.finish_reason for choice, one in done(batch).items()}
    assert reasons == {0: FinishReason.TOOL_CALLS, 1: FinishReason.LENGTH}
    (totals,) = [item for item in batch if isinstance(item, Totals)]
    for choice in range(2):
        assert len(ids(batch, choice)) == sum(piece.token_count or 0 for piece in pieces(batch, choice))
        assert len(ids(batch, choice)) == sum(len(piece.logprobs) for piece in pieces(batch, choice))
    assert totals.output_tokens == len(ids(batch, 0)) + len(ids(batch, 1))


@pytest.mark.asyncio
async def test_text_before_a_call_is_the_answers() -> None:
    batch = await replay("native-tool-after-text.txt", Submission(), 60, layout=TOOLS)
    assert channels(batch) == {Channel(): "I will look.\n", Channel(0, CALL, 0): '{"city": "Geme"}'}


@pytest.mark.asyncio
async def test_what_might_have_become_a_call_is_told_when_the_answer_ends() -> None:
    answer = answer_to(Submission(), 2, layout=TOOLS)
    batch: list[Generated] = []
    end = b'{"content":"","tokens":[],"stop":true,"stop_type":"limit","tokens_predicted":2,"tokens_evaluated":2}'
    await answer.read([event("1 ", [5], 1), event("<tool", [6], 2), end], batch)
    assert channels(batch) == {Channel(): "1 <tool"}
    assert ids(batch) == [5, 6]


@pytest.mark.asyncio
async def test_without_tools_the_same_is_text() -> None:
    batch = await replay("native-tool-after-text.txt", Submission(), 60)
    assert channels(batch)[Channel()].startswith('I will look.\n<tool_call>\n{"name": ')


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(5))
async def test_reasoning_is_told_apart_and_its_tokens_are_counted(seed: int) -> None:
    batch = await replay("native-thoughts.txt", Submission(), 60, seed=seed, layout=Layout(thoughts=True))
    assert channels(batch) == {
        Channel(0, ChannelKind.REASONING): "is  the sum of the first n natural odd k",
        Channel(): "Yes,  is  the .",
    }
    (totals,) = [item for item in batch if isinstance(item, Totals)]
    reasoning = [piece for piece in pieces(batch) if piece.channel.kind is ChannelKind.REASONING]
    assert totals.reasoning_tokens == sum(piece.token_count or 0 for piece in reasoning)
    assert done(batch)[0].finish_reason is FinishReason.STOP


@pytest.mark.asyncio
async def test_a_long_prompt_is_told_step_by_step() -> None:
    batch = await replay("native-progress.txt", Submission(), 2)
    steps = [item for item in batch if isinstance(item, PrefillProgress)]
    assert [(one.done_tokens, one.cached_tokens, one.prompt_tokens) for one in steps] == [
        (0, 0, 1900),
        (512, 0, 1900),
        (1024, 0, 1900),
        (1536, 0, 1900),
    ]
    assert isinstance(batch[len(steps)], PromptRead)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_a_stop_token_ends_its_choice_and_the_others_go_on(seed: int) -> None:
    asked = Submission(sampling=TWO, stopping=Stopping(stop_token_ids=(CITY,)))
    batch = await replay("native-n2-comma.txt", asked, 24, Names(), seed=seed)
    whole = await replay("native-n2-comma.txt", Submission(sampling=TWO), 24)
    assert text(batch, 0) == text(whole, 0)
    assert text(whole, 1).startswith(text(batch, 1) + " city")
    assert ids(batch, 1) == ids(whole, 1)[:3]
    assert done(batch)[1] == ChoiceDone(choice=1, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=CITY)
    assert done(batch)[0].finish_reason is FinishReason.LENGTH


@pytest.mark.asyncio
async def test_an_answer_is_done_when_every_choice_is_at_a_stop_token() -> None:
    asked = Submission(sampling=TWO, stopping=Stopping(stop_token_ids=(COMMA, 500)))
    batch = await replay("native-n2-comma.txt", asked, 24, Names())
    assert {one.matched_stop for one in done(batch).values()} == {COMMA}
    assert (text(batch, 0), text(batch, 1)) == ("", "")
    assert isinstance(batch[-1], Totals)
    assert batch[-1].output_tokens == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "stop", "told"),
    [("ab", 7, ""), ("x ab", 7, "x "), ("x", 8, "x"), ("", 8, ""), ("x\N{SNOWMAN}", 9, "x")],
)
async def test_the_text_of_a_stop_token_is_not_told_and_what_came_with_it_is(
    content: str, stop: int, told: str
) -> None:
    answer = answer_to(Submission(stopping=Stopping(stop_token_ids=(stop,))), 9, Names())
    batch: list[Generated] = []
    await answer.read([event(content, [stop], 1)], batch)
    assert answer.done
    assert text(batch) == told
    assert ids(batch) == [stop]


@pytest.mark.asyncio
async def test_text_held_back_as_half_a_stop_string_is_told_at_a_stop_token() -> None:
    answer = answer_to(Submission(stopping=Stopping(stop=("abc",), stop_token_ids=(8,))), 9, Names())
    batch: list[Generated] = []
    await answer.read([event("", [7], 1), event("", [8], 2)], batch)
    assert text(batch) == "ab"
    assert done(batch)[0].matched_stop == 8


@pytest.mark.asyncio
async def test_a_stop_string_is_told_where_it_is_to_be_kept() -> None:
    asked = Submission(stopping=Stopping(max_tokens=20, stop=("9 10 12", " 9 10"), include_stop=True))
    batch = await replay("native-stop-word.txt", asked, 20)
    assert text(batch) == " 7 8 9 10"
    assert done(batch)[0].matched_stop == " 9 10"


@pytest.mark.asyncio
async def test_include_stop_adds_nothing_where_no_stop_string_was_met() -> None:
    asked = Submission(stopping=Stopping(max_tokens=4, stop=("8 9",), include_stop=True))
    batch = await replay("native-stop-held-at-limit.txt", asked, 4, FakeVocabulary())
    assert text(batch) == " 7 8"
