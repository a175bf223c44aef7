"""What cannot be carried across a break is refused by name, and the run keeps its text."""

from dataclasses import replace
from typing import Any

import pytest

from tokenwire.dispatch.carried import derived_seed, refused_by
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import Code
from tokenwire.domain.events import Continuation, Dispatched
from tokenwire.domain.generation import CallHead, Job, Piece, PromptLogprobs
from tokenwire.domain.request import (
    BeamSearch,
    Constraint,
    Logprobs,
    Output,
    ReasoningEffort,
    RunOptions,
    Sampling,
    Stopping,
    Submission,
    Tool,
)
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.scripted import Cut, Emit, ScriptedEngine, Step
from tokenwire.engines.sglang.adapter import SglangEngine
from tokenwire.engines.toy_model import FIELDS, ToyModel
from tokenwire.engines.vllm.adapter import VllmEngine
from unit.dispatch.house import House, say, text_of


async def broken(engines: list[ScriptedEngine], asked: Submission) -> Run:
    house = House(engines[0], engines=engines, failover=Failover())
    run = await house.submit(asked)
    await run.finished()
    await house.runs.drain(0)
    assert house.fleet.places.taken == 0
    return run


def request(**groups: Any) -> Submission:
    stopping = groups.pop("stopping", Stopping(max_tokens=20))
    return Submission(prompt="hi", stopping=stopping, run=RunOptions(detached=True), **groups)


def dispatched(run: Run) -> list[Dispatched]:
    return [marked.marker for marked in run.log.markers if isinstance(marked.marker, Dispatched)]


REFUSED: dict[str, tuple[Submission, str]] = {
    "a constraint": (request(constraint=Constraint(regex="a")), "constraint"),
    "tools": (request(tools=(Tool(name="f"),)), "tools"),
    "reasoning": (request(reasoning=ReasoningEffort.HIGH), "reasoning"),
    "a beam search": (request(sampling=Sampling(beam_search=BeamSearch(width=2))), "sampling.beam_search"),
    "a presence penalty": (request(sampling=Sampling(presence_penalty=0.5)), "sampling.presence_penalty"),
    "a frequency penalty": (request(sampling=Sampling(frequency_penalty=-1.0)), "sampling.frequency_penalty"),
    "the prompt's log probabilities": (
        request(output=Output(prompt_logprobs=Logprobs(top_n=1))),
        "output.prompt_logprobs",
    ),
}


@pytest.mark.parametrize(("asked", "field"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.asyncio
async def test_it_is_refused_by_name_and_the_text_stays(asked: Submission, field: str) -> None:
    toy = ToyModel()
    run = await broken([toy.engine("a", die_after=[6]), toy.engine("b")], asked)
    assert run.error is not None
    # What the engine failed with is the reason; that it could not be mended is told beside it.
    assert (run.error.code, run.error.reason) == (Code.DATA_LOSS, "ENGINE_LOST")
    assert run.error.metadata["continuation_refused"] == field
    assert field in run.error.message
    assert text_of(run)
    assert [one.engine for one in dispatched(run)] == ["a"]


NEUTRAL = Sampling(presence_penalty=0.0, frequency_penalty=0.0, repetition_penalty=1.3)


@pytest.mark.asyncio
async def test_values_that_ask_for_nothing_and_penalties_that_an_engine_goes_on_with_are_carried() -> None:
    toy = ToyModel()
    asked = request(sampling=NEUTRAL, reasoning=ReasoningEffort.NONE)
    run = await broken([toy.engine("a", die_after=[6]), toy.engine("b")], asked)
    assert run.error is None
    assert [one.continuation for one in dispatched(run)] == [Continuation.FIRST, Continuation.BY_TOKENS]


def test_each_kind_of_engine_goes_on_with_the_penalties_that_count_its_prompt() -> None:
    penalties = [Sampling(repetition_penalty=1.1), Sampling(presence_penalty=0.1), Sampling(frequency_penalty=0.1)]
    kinds: list[Any] = [LlamaCppEngine, VllmEngine, SglangEngine]
    assert [[refused_by(kind, one) is None for one in penalties] for kind in kinds] == [
        [True, True, True],
        [True, False, False],
        [False, False, False],
    ]


@pytest.mark.asyncio
async def test_a_penalty_is_carried_by_the_engine_that_can() -> None:
    toy = ToyModel()
    a, b, c = toy.engine("a", die_after=[6]), toy.engine("b"), toy.engine("c")
    c.carries = frozenset({"presence_penalty"})
    run = await broken([a, b, c], request(sampling=Sampling(presence_penalty=0.5)))
    assert run.error is None
    assert [one.engine for one in dispatched(run)] == ["a", "c"]


@pytest.mark.parametrize(
    ("kind", "field"), [(ChannelKind.REASONING, "reasoning"), (ChannelKind.TOOL_CALL, "tools")], ids=["r", "t"]
)
@pytest.mark.asyncio
async def test_what_a_parser_has_told_apart_cannot_be_gone_on_with(kind: ChannelKind, field: str) -> None:
    channel = Channel(0, kind)
    head = [CallHead(channel=channel, id="i", name="f")] if kind is ChannelKind.TOOL_CALL else []
    steps: list[Step] = [Emit((*head, Piece(channel=channel, text="a", token_ids=(1,)))), Cut()]
    a = ScriptedEngine("a", script=lambda job: steps)
    run = await broken([a, ScriptedEngine("b")], request())
    assert run.error is not None
    assert run.error.metadata["continuation_refused"] == field


@pytest.mark.asyncio
async def test_log_probabilities_of_the_prompt_that_were_told_are_not_asked_for_again() -> None:
    toy = ToyModel()
    asked = request(output=Output(prompt_logprobs=Logprobs(top_n=1)))
    heard: list[Submission] = []

    def first(job: Job) -> list[Step]:
        return [Emit((PromptLogprobs(logprobs=()),)), *toy.steps(job, 5)]

    def second(job: Job) -> list[Step]:
        heard.append(job.submission)
        return toy.steps(job)

    a, b = toy.engine("a"), toy.engine("b")
    a._script, b._script = first, second
    run = await broken([a, b], asked)
    # No probability at all is no event; so none was told.
    assert run.error is not None
    assert run.error.metadata["continuation_refused"] == "output.prompt_logprobs"
    assert not heard


@pytest.mark.asyncio
async def test_an_engine_that_takes_no_tokens_goes_on_with_a_raw_prompt_by_its_text_and_with_a_chat_not_at_all() -> (
    None
):
    toy = ToyModel()
    plain = ScriptedEngine("b", script=toy.steps, fields=[field for field in FIELDS if field != "prompt_ids"])
    plain.tokenizer, plain.takes_ids = None, False
    asked = request(sampling=Sampling(seed=3))
    run = await broken([toy.engine("a", die_after=[8]), plain], asked)
    assert run.error is None
    assert [one.continuation for one in dispatched(run)] == [Continuation.FIRST, Continuation.BY_TEXT]
    run = await broken(
        [toy.engine("a", die_after=[8, 0, 0, 0, 0]), plain], replace(asked, prompt=None, prompt_ids=(65,))
    )
    assert run.error is not None
    assert {one.engine for one in dispatched(run)} == {"a"}


@pytest.mark.asyncio
async def test_the_rest_of_a_choice_is_asked_for_with_what_is_left_of_its_limits() -> None:
    toy, heard = ToyModel(), list[Job]()

    def hears(job: Job) -> list[Step]:
        heard.append(job)
        return toy.steps(job)

    b = toy.engine("b")
    b._script = hears
    asked = request(
        sampling=Sampling(seed=7, temperature=0.5),
        stopping=Stopping(max_tokens=20, min_tokens=15, stop=("zzz",)),
        output=Output(echo=True, logprobs=Logprobs(top_n=0)),
    )
    run = await broken([toy.engine("a", die_after=[8]), b], asked)
    (job,) = heard
    log = run.log.channel(Channel())
    assert log is not None
    written = 20 - (job.submission.stopping.max_tokens or 0)
    assert 5 <= written <= 8
    assert job.submission.stopping == Stopping(max_tokens=20 - written, min_tokens=15 - written, stop=("zzz",))
    assert job.submission.sampling == Sampling(seed=derived_seed(7, 0, written), temperature=0.5)
    assert job.submission.output == Output(logprobs=Logprobs(top_n=0))
    assert job.submission.prompt_ids == job.prompt.token_ids == (*toy.ids_of("hi"), *log.token_ids[:written])
    assert (job.submission.prompt, job.submission.messages) == (None, ())
    assert job.run_id == f"{run.id}-0"


def test_a_seed_is_derived_the_same_each_time_and_differs_by_choice_and_place() -> None:
    seeds = {derived_seed(seed, choice, written) for seed in (0, 1) for choice in (0, 1) for written in (5, 6)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)


@pytest.mark.asyncio
async def test_a_choice_that_had_all_its_tokens_ends_without_another_engine() -> None:
    toy = ToyModel()
    engines = [toy.engine("a", die_after=[5, None]), toy.engine("b")]
    # The fifth token is told, and nothing of the end.
    steps: list[Step] = [*[say("x")] * 5, Cut()]
    engines[0]._script = lambda job: steps
    run = await broken(engines, request(stopping=Stopping(max_tokens=5)))
    assert run.error is None
    assert [one.engine for one in dispatched(run)] == ["a"]
    assert run.end is not None
    assert run.end.choices[0].finish_reason.name == "LENGTH"
