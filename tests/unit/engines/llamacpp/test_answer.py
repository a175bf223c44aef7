"""From llama.cpp's events to pieces, replayed from captures."""

import pytest

from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, PrefillProgress, PromptRead, Totals
from tokenwire.domain.request import Logprobs, Output, Sampling, Stopping, Submission
from tokenwire.engines.framing import EventSplitter
from unit.engines import captures
from unit.engines.llamacpp.replay import (
    EMOJI_IDS,
    PROMPT_IDS,
    FakeVocabulary,
    answer_to,
    done,
    ids,
    pieces,
    replay,
    text,
)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(5))
async def test_a_stream_reads_the_same_in_any_cut(seed: int) -> None:
    batch = await replay("03-completion-native-stream.txt", Submission(), 5, seed=seed)
    assert batch[0] == PromptRead(prompt_tokens=5, cached_tokens=4, token_ids=PROMPT_IDS)
    assert text(batch) == " Paris.\n\nThe"
    assert ids(batch) == [7042, 30, 198, 198, 504]
    assert [piece.token_count for piece in pieces(batch)] == [1] * 5
    assert batch[-2:] == [
        ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH),
        Totals(prompt_tokens=5, cached_tokens=4, output_tokens=5),
    ]


@pytest.mark.asyncio
async def test_two_choices_in_one_stream_are_told_apart_and_share_one_prompt() -> None:
    batch = await replay("native-n2-progress.txt", Submission(sampling=Sampling(n=2)), 4)
    assert [item for item in batch if isinstance(item, PromptRead)] == [
        PromptRead(prompt_tokens=2, cached_tokens=0, token_ids=PROMPT_IDS)
    ]
    assert [type(item) for item in batch[:2]] == [PrefillProgress, PromptRead]
    assert (text(batch, 0), text(batch, 1)) == ("ized language is to", " of Ireland.\n")
    assert (ids(batch, 0), ids(batch, 1)) == ([1005, 1789, 314, 288], [282, 7597, 30, 198])
    assert done(batch).keys() == {0, 1}
    assert [item for item in batch if isinstance(item, Totals)] == [
        Totals(prompt_tokens=2, cached_tokens=0, output_tokens=8)
    ]
    assert isinstance(batch[-1], Totals)


@pytest.mark.asyncio
async def test_ids_that_the_stream_leaves_out_of_a_character_are_found_by_its_text() -> None:
    batch = await replay("native-emoji-logprobs.txt", Submission(), 20, FakeVocabulary(EMOJI_IDS))
    assert text(batch) == "🦜é🦜☃"
    # The last one is the token of the end, which has no text.
    assert ids(batch) == [10813, 116, 246, 142, 119, 10813, 116, 246, 173, 242, 221, 0]
    assert [piece.token_count for piece in pieces(batch)] == [3, 2, 3, 3, 1]
    assert done(batch)[0].finish_reason is FinishReason.STOP


@pytest.mark.asyncio
@pytest.mark.parametrize("wrong", [(10813, 116, 247), (10813, 246), ()])
async def test_ids_that_do_not_agree_with_the_stream_are_not_told(wrong: tuple[int, ...]) -> None:
    vocabulary = FakeVocabulary(EMOJI_IDS | {"🦜": wrong})
    batch = await replay("native-emoji-logprobs.txt", Submission(), 20, vocabulary)
    assert [(tuple(piece.token_ids), piece.token_count) for piece in pieces(batch)][:2] == [((), 3), ((142, 119), 2)]


@pytest.mark.asyncio
async def test_log_probabilities_are_of_the_token_and_not_of_the_text_it_came_with() -> None:
    asked = Submission(output=Output(logprobs=Logprobs(top_n=1)))
    batch = await replay("native-emoji-logprobs.txt", asked, 20, FakeVocabulary(EMOJI_IDS))
    first = pieces(batch)[0].logprobs
    assert [(one.token_id, one.token, round(one.logprob or 0, 4)) for one in first] == [(246, "<246>", -2.6533)]
    assert [(one.token_id, one.token) for one in first[0].top] == [(130, "\ufffd")]


@pytest.mark.asyncio
async def test_log_probabilities_are_left_out_unless_asked_for() -> None:
    batch = await replay("native-emoji-logprobs.txt", Submission(), 20, FakeVocabulary(EMOJI_IDS))
    assert all(piece.logprobs == () for piece in pieces(batch))


@pytest.mark.asyncio
async def test_text_held_back_as_half_a_stop_string_is_not_lost_at_the_limit() -> None:
    asked = Submission(stopping=Stopping(max_tokens=4, stop=("8 9",)))
    batch = await replay("native-stop-held-at-limit.txt", asked, 4)
    assert text(batch) == " 7 8"
    assert ids(batch) == [216, 39, 216, 40]
    assert sum(piece.token_count or 0 for piece in pieces(batch)) == 4
    assert done(batch)[0].finish_reason is FinishReason.LENGTH


@pytest.mark.asyncio
async def test_a_special_token_before_the_limit_is_not_taken_for_held_text() -> None:
    answer = answer_to(Submission(stopping=Stopping(stop=("x",))), 1)
    batch: list[Generated] = []
    special = b'{"content":"","tokens":[1],"stop":false,"tokens_predicted":1,"tokens_evaluated":2}'
    end = b'{"content":"","tokens":[],"stop":true,"stop_type":"limit","tokens_predicted":1,"tokens_evaluated":2}'
    await answer.read([special, end], batch)
    assert text(batch) == ""


@pytest.mark.asyncio
async def test_a_stop_string_ends_the_choice_and_is_named() -> None:
    asked = Submission(stopping=Stopping(max_tokens=20, stop=("9 10 12", " 9 10")))
    batch = await replay("native-stop-word.txt", asked, 20)
    assert text(batch) == " 7 8"
    assert done(batch)[0] == ChoiceDone(choice=0, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=" 9 10")


@pytest.mark.asyncio
async def test_a_full_window_is_told_apart_from_the_requests_own_limit() -> None:
    full = await replay("native-context-full.txt", Submission(), 20)
    assert done(full)[0].finish_reason is FinishReason.CONTEXT_LENGTH
    # The same stream, had the request asked for just as many tokens as there was room for.
    limited = await replay("native-context-full.txt", Submission(), 4)
    assert done(limited)[0].finish_reason is FinishReason.LENGTH


@pytest.mark.asyncio
async def test_tokens_of_a_character_that_the_limit_cut_off_are_counted() -> None:
    batch = await replay("native-limit-inside-character.txt", Submission(), 4, FakeVocabulary(EMOJI_IDS))
    assert text(batch) == "é"
    assert sum(piece.token_count or 0 for piece in pieces(batch)) == 4


@pytest.mark.asyncio
async def test_text_that_came_with_an_error_is_kept() -> None:
    answer = answer_to(Submission(), 10)
    batch: list[Generated] = []
    good = b'{"index":0,"content":"a","tokens":[5],"stop":false,"tokens_predicted":1,"tokens_evaluated":2}'
    error = b'{"error":{"code":500,"message":"secret prompt","type":"server_error"}}'
    with pytest.raises(EngineError) as caught:
        await answer.read([good, error], batch)
    assert caught.value.code is Code.UNAVAILABLE
    assert "secret" not in str(caught.value)
    assert text(batch) == "a"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "payload",
    [
        b'{"index":1,"content":"a","tokens":[5],"stop":false,"tokens_predicted":1,"tokens_evaluated":2}',
        b'{"index":-1,"content":"a","tokens":[5],"stop":false,"tokens_predicted":1,"tokens_evaluated":2}',
        b'{"index":0,"content":"a","tokens":[5],"stop":false,"tokens_predicted":-1,"tokens_evaluated":2}',
        b'{"index":0,"content":"","tokens":[],"stop":true,"stop_type":"none","tokens_predicted":0}',
    ],
)
async def test_an_event_that_cannot_be_is_not_the_engines_protocol(payload: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        await answer_to(Submission(), 10).read([payload], [])
    assert caught.value.reason == "UPSTREAM_PROTOCOL"


@pytest.mark.asyncio
async def test_a_stream_that_stops_before_its_final_event_is_not_done() -> None:
    answer = answer_to(Submission(sampling=Sampling(n=2)), 4)
    events = captures.events(captures.body("llama-cpp", "native-n2-progress.txt"))
    for event in events[:-1]:
        await answer.read(EventSplitter().feed(event), [])
    assert not answer.done
