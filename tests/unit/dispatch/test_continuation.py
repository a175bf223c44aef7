"""A run that is broken off anywhere and gone on with is, byte for byte, the unbroken run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tokenwire.dispatch.run import Run
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import Continuation, Dispatched, FinishReason
from tokenwire.domain.generation import Piece
from tokenwire.domain.request import Logprobs, Message, Output, Role, Sampling, Stopping, Submission
from tokenwire.engines.scripted import Cut, Emit, Pause, ScriptedEngine, Step
from tokenwire.engines.toy_model import FIELDS, ToyModel
from unit.dispatch.house import House, say, stop

PROMPT = "Tell me of the r\u00edver."
CONTINUE = Failover()


@dataclass(frozen=True)
class Told:
    """What a run told."""

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    tokens: tuple[int, ...]
    logprobs: tuple[tuple[tuple[int, float | None], ...], ...]
    reasons: tuple[FinishReason, ...]
    stops: tuple[str | int | None, ...]
    output_tokens: int
    prompt_tokens: int


def request(n: int = 1, **groups: Any) -> Submission:
    """Returns a request for text."""
    stopping = groups.pop("stopping", Stopping(max_tokens=20))
    return Submission(prompt=groups.pop("prompt", PROMPT), sampling=Sampling(n=n), stopping=stopping, **groups)


async def run_of(engines: Sequence[ScriptedEngine], asked: Submission) -> Run:
    """Runs a request to its end."""
    house = House(engines[0], engines=engines, failover=CONTINUE)
    run = await house.submit(asked)
    await run.finished()
    assert house.fleet.places.taken == 0
    return run


def of(run: Run) -> Told:
    """Reads all that a run told; tokens at the very end of a choice without text included."""
    assert run.end is not None
    assert run.error is None, run.error
    logs = [run.log.channel(Channel(choice)) for choice in range(run.submission.n)]
    trailing = [[one for each in end.trailing for one in each.token_ids] for end in run.end.choices]
    points = [[one for each in end.trailing for one in each.logprobs] for end in run.end.choices]
    for log, more in zip(logs, points, strict=True):
        more[:0] = [one for place in sorted(log.logprobs) for one in log.logprobs[place]] if log else []
    ids = [(*(log.token_ids if log else ()), *more) for log, more in zip(logs, trailing, strict=True)]
    return Told(
        texts=tuple(log.text.decode() if log else "" for log in logs),
        ids=tuple(ids),
        tokens=tuple((log.tokens[-1] if log else 0) + len(more) for log, more in zip(logs, trailing, strict=True)),
        logprobs=tuple(tuple((one.token_id or 0, one.logprob) for one in each) for each in points),
        reasons=tuple(end.finish_reason for end in run.end.choices),
        stops=tuple(end.matched_stop for end in run.end.choices),
        output_tokens=run.end.usage.output_tokens,
        prompt_tokens=run.end.usage.prompt_tokens,
    )


def how(run: Run) -> list[Continuation]:
    """Returns how each attempt went on."""
    return [marked.marker.continuation for marked in run.log.markers if isinstance(marked.marker, Dispatched)]


REQUESTS: dict[str, Submission] = {
    "one choice": request(),
    "three choices": request(3),
    "a stop string": request(stopping=Stopping(max_tokens=60, stop=("ills, s", "time\n", ". the"))),
    "a stop string that is told": request(
        2, stopping=Stopping(max_tokens=60, stop=("ills, s", "e slow", "s\n"), include_stop=True)
    ),
    "an end of its own": request(2, stopping=Stopping(max_tokens=200)),
    "a least number of tokens": request(stopping=Stopping(max_tokens=40, min_tokens=30)),
    "log probabilities": request(2, output=Output(logprobs=Logprobs(top_n=0))),
    "the prompt told": request(2, output=Output(echo=True)),
    "a chat": Submission(messages=(Message(role=Role.USER, content="hi \u20ac"),), stopping=Stopping(max_tokens=15)),
    "token ids": Submission(prompt_ids=(256, 65, 66), stopping=Stopping(max_tokens=15)),
}


def model(asked: Submission, **options: Any) -> ToyModel:
    """Returns the model for a request: one that comes to an end where the request leaves it to it."""
    return ToyModel(ends=23 if (asked.stopping.max_tokens or 0) > 60 or asked.stopping.min_tokens else 0, **options)


@pytest.mark.parametrize("holds_back", [False, True], ids=["tokens wait for text", "tokens ahead of text"])
@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS.keys())
@pytest.mark.asyncio
async def test_a_run_whose_engine_dies_after_any_token_is_the_unbroken_run(asked: Submission, holds_back: bool) -> None:
    toy = model(asked, holds_back=holds_back)
    unbroken = of(await run_of([toy.engine("a")], asked))
    longest = max(unbroken.tokens)
    assert longest > 5
    for death in range(longest + 1):
        run = await run_of([toy.engine("a", die_after=[death]), toy.engine("b")], asked)
        whole = of(run)
        if holds_back and asked.stopping.stop:
            # What the second engine told ahead of a stop string across the joint was written, and counts.
            assert all(mine[: len(ids)] == ids for mine, ids in zip(whole.ids, unbroken.ids, strict=True))
            assert whole.output_tokens == sum(whole.tokens)
            whole = replace(whole, ids=unbroken.ids, tokens=unbroken.tokens, output_tokens=unbroken.output_tokens)
        assert whole == unbroken, f"broken after {death} tokens"
        if death:
            assert set(how(run)[1:]) <= {Continuation.BY_TOKENS, Continuation.FIRST}


# A text that is held back inside a word is no text that this model could go on from.
BY_TEXT = {name: asked for name, asked in REQUESTS.items() if "stop" not in name} | {
    "a stop string": request(2, stopping=Stopping(max_tokens=60, stop=(" carries and", ", the"))),
    # Bytes mean the same to both.
    "token ids": replace(REQUESTS["token ids"], prompt_ids=(65, 66)),
}


@pytest.mark.parametrize("asked", BY_TEXT.values(), ids=BY_TEXT.keys())
@pytest.mark.asyncio
async def test_where_engines_read_text_as_other_tokens_it_goes_on_by_text(asked: Submission) -> None:
    toy, other, attempts = model(asked), model(asked, shift=1000), set()
    unbroken = of(await run_of([toy.engine("a")], asked))
    for death in range(2, max(unbroken.tokens), 3):
        run = await run_of([toy.engine("a", die_after=[death]), other.engine("b")], asked)
        whole = of(run)
        assert (whole.texts, whole.reasons, whole.stops) == (unbroken.texts, unbroken.reasons, unbroken.stops)
        assert whole.output_tokens == unbroken.output_tokens
        attempts |= set(how(run)[1:])
    # The first character may not have been whole.
    assert Continuation.BY_TEXT in attempts
    assert Continuation.BY_TOKENS not in attempts


@pytest.mark.asyncio
async def test_an_engine_that_dies_again_and_again_is_gone_on_with_again_and_again() -> None:
    toy, asked = ToyModel(), request(3, stopping=Stopping(max_tokens=200))
    unbroken = of(await run_of([toy.engine("a")], asked))
    # Every job of the only engine lives for twelve tokens of each choice.
    run = await run_of([toy.engine("a", die_after=[12] * 1000)], asked)
    assert of(run) == unbroken
    assert len(how(run)) > 16


@pytest.mark.asyncio
async def test_a_run_is_written_to_its_end_by_engines_of_both_kinds_in_turn() -> None:
    toy, other, asked = ToyModel(), ToyModel(shift=500), request(stopping=Stopping(max_tokens=60))
    unbroken = of(await run_of([toy.engine("a")], asked))
    run = await run_of([toy.engine("a", die_after=[17] * 99), other.engine("b", die_after=[17] * 99)], asked)
    assert of(run).texts == unbroken.texts
    assert how(run)[:3] == [Continuation.FIRST, Continuation.BY_TEXT, Continuation.BY_TEXT]


def in_pairs(steps: Sequence[Step]) -> list[Step]:
    """Tells two tokens in one piece, as a read may: the second one may be a part of a character."""
    merged: list[Step] = []
    held: Piece | None = None
    for step in steps:
        pieces = [one for one in step.batch if isinstance(one, Piece)] if isinstance(step, Emit) else []
        if not pieces or not isinstance(step, Emit):
            merged += [*([Emit((held,))] if held else []), step]
            held = None
            continue
        rest = tuple(one for one in step.batch if not isinstance(one, Piece))
        (one,) = pieces
        if held is None and not rest:
            held = one
            continue
        text, ids = (held.text, tuple(held.token_ids)) if held else ("", ())
        both = Piece(channel=Channel(), text=text + one.text, token_ids=(*ids, *one.token_ids))
        merged.append(Emit((both, *rest)))
        held = None
    return merged


@pytest.mark.asyncio
async def test_tokens_that_end_inside_a_character_are_cut_back_and_counted_once() -> None:
    toy, asked = ToyModel(), request(stopping=Stopping(max_tokens=40))
    unbroken = of(await run_of([toy.engine("a")], asked))
    cut_back = 0
    for death in range(2, 40):
        a, b = toy.engine("a"), toy.engine("b")
        a._script = lambda job, death=death: in_pairs(toy.steps(job, death))  # type: ignore[misc]
        run = await run_of([a, b], asked)
        assert of(run) == unbroken, f"broken after {death} tokens"
        cut_back += run.attempt == 2 and b.started == 1
    assert cut_back > 30


@pytest.mark.asyncio
async def test_engines_that_wrote_nothing_do_not_count_among_those_whose_tokens_they_are() -> None:
    toy, other, asked = ToyModel(), ToyModel(shift=500), request()
    unbroken = of(await run_of([toy.engine("x")], asked))
    engines = [other.engine("a", die_after=[0]), toy.engine("b", die_after=[9]), toy.engine("c")]
    run = await run_of(engines, asked)
    assert of(run) == unbroken
    assert how(run) == [Continuation.FIRST, Continuation.FIRST, Continuation.BY_TOKENS]


@pytest.mark.asyncio
async def test_an_engine_that_does_not_know_of_a_stop_string_across_the_break_is_stopped() -> None:
    a = ScriptedEngine("a", script=lambda job: [say("The EN"), Cut()], fields=FIELDS)
    b = ScriptedEngine("b", script=lambda job: [say("D and"), Pause(None)], fields=FIELDS)
    run = await run_of([a, b], request(stopping=Stopping(max_tokens=20, stop=("END",), include_stop=True)))
    assert of(run).texts == ("The END",)
    assert of(run).stops == ("END",)
    assert (b.stopped, run.elapsed_ms()) == (1, 0)


@pytest.mark.asyncio
async def test_an_attempt_before_the_first_text_is_a_first_one_though_a_choice_has_ended() -> None:
    a = ScriptedEngine("a", script=lambda job: [stop(1), Cut()], fields=FIELDS)
    b = ScriptedEngine("b", script=lambda job: [say("a"), stop()], fields=FIELDS)
    run = await run_of([a, b], request(2))
    assert of(run).texts == ("a", "")
    assert how(run) == [Continuation.FIRST, Continuation.FIRST]
