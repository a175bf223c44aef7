"""A run whose engine fails is tried again, within limits, and elsewhere where it can be."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tokenwire.dispatch.breaker import BreakerState
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Continuation, Dispatched, FinishReason
from tokenwire.domain.generation import Job, Prompt, Tell
from tokenwire.domain.request import FailoverPolicy, Limits, RunOptions, Stopping, Submission
from tokenwire.engines.engine import Token
from tokenwire.engines.failure import overloaded, refusal, unreachable
from tokenwire.engines.scripted import Cut, Fail, Pause, ScriptedEngine, Step
from tokenwire.engines.status import EngineState
from tokenwire.engines.toy_model import ToyModel
from unit.dispatch.house import House, asked, say, stop, text_of

LOST = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "gone", retryable=True, retry_after=1.0)
AUTH = refusal(401, b"")
UNKNOWN = refusal(404, b'{"error":{"message":"The model `m` does not exist.","type":"NotFoundError"}}')
GOOD = [say("a"), stop()]


def engine(name: str, *scripts: Sequence[Step], **options: Any) -> ScriptedEngine:
    """Returns an engine that plays one script after another, the last one again and again."""
    left = list(scripts)
    return ScriptedEngine(name, script=lambda job: left.pop(0) if len(left) > 1 else left[0], **options)


def house(*engines: ScriptedEngine, **failover: Any) -> House:
    """Returns a house of these engines that tries again."""
    return House(engines[0], engines=engines, failover=Failover(**failover))


async def ended(one: House, submission: Submission | None = None) -> Run:
    """Runs a request to its end."""
    run = await one.submit(submission or asked(detached=True))
    await run.finished()
    assert one.fleet.places.taken == 0
    return run


def attempts(run: Run) -> list[str]:
    """Returns the engines of a run's attempts."""
    return [marked.marker.engine for marked in run.log.markers if isinstance(marked.marker, Dispatched)]


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("failure", [LOST, AUTH, UNKNOWN, unreachable(), overloaded(2.0), refusal(500, b"")])
@pytest.mark.asyncio
async def test_what_another_engine_can_mend_goes_to_it_at_once(failure: EngineError) -> None:
    run = await ended(house(engine("a", [Fail(failure)]), engine("b", GOOD)))
    assert (run.error, text_of(run), attempts(run)) == (None, "a", ["a", "b"])
    assert run.engine is not None
    assert run.engine.name == "b"
    assert now() == 0


NEVER: dict[str, Exception] = {
    "a refusal": refusal(400, b'{"error":{"message":"no","param":"temperature"}}'),
    "a prompt too long": refusal(400, b'{"error":{"message":"maximum context length is 5 tokens"}}'),
    "a bug": ValueError("a bug"),
    "no room": TokenwireError(Code.RESOURCE_EXHAUSTED, "JOURNAL_FULL", "full", retryable=True),
}


@pytest.mark.parametrize("failure", NEVER.values(), ids=NEVER.keys())
@pytest.mark.asyncio
async def test_what_no_engine_can_mend_is_tried_once(failure: Exception) -> None:
    run = await ended(house(engine("a", [Fail(failure)]), engine("b", GOOD)))
    assert run.error is not None
    assert attempts(run) == ["a"]


@pytest.mark.parametrize(("failure", "tried"), [(LOST, 5), (AUTH, 1), (UNKNOWN, 1)])
@pytest.mark.asyncio
async def test_the_only_engine_is_tried_again_unless_it_would_say_the_same(failure: EngineError, tried: int) -> None:
    run = await ended(house(engine("a", [Fail(failure)])))
    assert attempts(run) == ["a"] * tried
    assert run.error is not None
    assert (run.error.code, run.error.reason) == (failure.code, failure.reason)
    # Pauses of up to 0.1, 0.2, 0.4 and 0.8 seconds.
    assert (0 < now() < 1.5) == (tried > 1)


@pytest.mark.asyncio
async def test_pauses_are_not_the_same_for_all() -> None:
    one = house(engine("a", [Fail(LOST)]))
    runs = [await one.submit(asked(detached=True)) for _ in range(4)]
    for run in runs:
        await run.finished()
    assert len({run.end.timings.completed_ms for run in runs if run.end}) == 4


@pytest.mark.parametrize("policy", [FailoverPolicy.NONE, FailoverPolicy.BEFORE_FIRST_TOKEN, FailoverPolicy.CONTINUE])
@pytest.mark.parametrize("by_request", [False, True])
@pytest.mark.asyncio
async def test_the_policy_is_the_request_s_or_else_the_server_s(policy: FailoverPolicy, by_request: bool) -> None:
    toy, request = ToyModel(), Submission(prompt="hi", stopping=Stopping(max_tokens=9))
    servers = policy
    if by_request:
        servers = FailoverPolicy.NONE if policy is FailoverPolicy.CONTINUE else FailoverPolicy.CONTINUE
        request = Submission(prompt="hi", stopping=request.stopping, run=RunOptions(failover=policy))
    early = await ended(house(toy.engine("a", die_after=[0]), toy.engine("b"), policy=servers), request)
    late = await ended(house(toy.engine("a", die_after=[5]), toy.engine("b"), policy=servers), request)
    assert attempts(early) == (["a"] if policy is FailoverPolicy.NONE else ["a", "b"])
    assert attempts(late) == (["a", "b"] if policy is FailoverPolicy.CONTINUE else ["a"])
    if policy is FailoverPolicy.BEFORE_FIRST_TOKEN:
        assert late.error is not None
        assert (late.error.code, late.error.metadata["continuation_refused"]) == (Code.DATA_LOSS, "run.failover")


@pytest.mark.asyncio
async def test_an_overloaded_engine_is_asked_again_when_it_wants_to_be() -> None:
    run = await ended(house(engine("a", [Fail(overloaded(7.0))], GOOD)))
    assert run.error is None
    assert 7.0 <= now() < 7.2


@pytest.mark.asyncio
async def test_nobody_waits_longer_than_the_limit_for_an_engine_that_wants_rest() -> None:
    run = await ended(house(engine("a", [Fail(overloaded(60.0))]), seconds=10.0))
    assert run.error is not None
    assert run.error.reason == "ENGINE_OVERLOADED"
    assert now() <= 10.0


@pytest.mark.asyncio
async def test_an_overloaded_engine_is_alive_and_others_go_before_it() -> None:
    a, b = engine("a", [Fail(overloaded(7.0))], GOOD), engine("b", GOOD)
    one = house(a, b)
    for _ in range(8):
        await ended(one)
    assert (a.started, b.started) == (1, 8)
    assert one.fleet.places.breaker(a).state is BreakerState.CLOSED
    await asyncio.sleep(7)
    await ended(one)
    assert a.started == 2


@pytest.mark.asyncio
async def test_a_run_waits_for_its_only_engine_to_come_back() -> None:
    toy = ToyModel(seconds=1.0)
    a = toy.engine("a", die_after=[10])
    one = house(a)
    run = await one.submit(Submission(prompt="hi", stopping=Stopping(max_tokens=20), run=RunOptions(detached=True)))
    await asyncio.sleep(5)
    # It writes on for a while, and dies.
    a.status.set(EngineState.UNAVAILABLE)
    await asyncio.sleep(15)
    a.status.set(EngineState.LOADING)
    await asyncio.sleep(5)
    assert run.end is None
    a.status.set(EngineState.READY)
    await run.finished()
    assert run.error is None
    assert now() == 25 + 10
    assert len(attempts(run)) == 2


@pytest.mark.asyncio
async def test_a_run_does_not_wait_for_ever_and_keeps_its_text() -> None:
    toy = ToyModel(seconds=1.0)
    a = toy.engine("a", die_after=[10])
    one = house(a)
    run = await one.submit(Submission(prompt="hi", stopping=Stopping(max_tokens=20), run=RunOptions(detached=True)))
    await asyncio.sleep(5)
    a.status.set(EngineState.UNAVAILABLE)
    await run.finished()
    assert run.error is not None
    assert (run.error.code, run.error.reason) == (Code.DATA_LOSS, "ENGINE_LOST")
    assert now() == 10 + 30
    assert text_of(run)
    assert run.end is not None
    assert run.end.choices[0].finish_reason is FinishReason.ERROR


@pytest.mark.asyncio
async def test_a_slow_engine_that_lives_is_never_cut_and_a_silent_one_is_replaced() -> None:
    toy = ToyModel(seconds=29.0)
    slow = await ended(
        house(toy.engine("a"), toy.engine("b")), Submission(prompt="hi", stopping=Stopping(max_tokens=9))
    )
    assert attempts(slow) == ["a"]
    silent = engine("a", [*ToyModel().steps(job_of("hi"), 4)[:-1], Pause(None)])
    silent.tokenizer = toy.engine("x").tokenizer
    began = now()
    run = await ended(house(silent, ToyModel().engine("b")), Submission(prompt="hi", stopping=Stopping(max_tokens=9)))
    assert attempts(run) == ["a", "b"]
    assert text_of(run) == text_of(slow)
    assert now() - began == 30
    assert silent.stopped == 1


def job_of(text: str) -> Job:
    """Returns a job for the toy model."""
    ids = ToyModel().ids_of(text)
    return Job(
        run_id="r",
        model="scripted",
        submission=Submission(prompt=text, stopping=Stopping(max_tokens=9)),
        prompt=Prompt(text=text, token_ids=ids, tokens=len(ids)),
    )


@pytest.mark.asyncio
async def test_an_engine_that_hangs_while_it_is_given_up_holds_nothing_up() -> None:
    class Clinging(ScriptedEngine):
        async def generate(self, job: Job, tell: Tell) -> None:
            self.started += 1
            try:
                for step in ToyModel().steps(job, 4)[:-1]:
                    tell(list(step.batch))  # type: ignore[union-attr]
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(1000)

    clinging = Clinging("a")
    clinging.tokenizer = ToyModel().engine("x").tokenizer
    run = await ended(house(clinging, ToyModel().engine("b")), Submission(prompt="hi", stopping=Stopping(max_tokens=9)))
    assert attempts(run) == ["a", "b"]
    assert run.error is None
    # The stall limit, and what an engine may take to stop.
    assert now() == 31


@pytest.mark.asyncio
async def test_the_request_s_own_limit_bounds_its_first_token_over_all_attempts() -> None:
    a, b = engine("a", [Pause(3), Cut()]), engine("b", [Pause(100), *GOOD])
    run = await ended(house(a, b), asked(detached=True, limits=Limits(first_token_timeout=5.0)))
    assert run.error is not None
    assert (run.error.code, run.error.reason) == (Code.DEADLINE_EXCEEDED, "FIRST_TOKEN_TIMEOUT")
    assert attempts(run) == ["a", "b"]
    assert now() == 5


@pytest.mark.asyncio
async def test_an_engine_that_gives_no_first_token_is_not_asked_again_but_another_one_is() -> None:
    a, b = engine("a", [Pause(None)]), engine("b", GOOD)
    run = await ended(house(a, b))
    assert (run.error, attempts(run), now()) == (None, ["a", "b"], 120)
    alone = await ended(house(engine("a", [Pause(None)])))
    assert alone.error is not None
    assert (alone.error.reason, attempts(alone)) == ("FIRST_TOKEN_TIMEOUT", ["a"])


@pytest.mark.asyncio
async def test_the_only_engine_of_a_model_is_not_shut_out_for_being_slow() -> None:
    a, b = engine("a", [Pause(None)]), engine("b", [Pause(None)])
    one = house(a)
    for _ in range(6):
        await ended(one)
    assert one.fleet.places.breaker(a).state is BreakerState.CLOSED
    two = house(engine("a", [Pause(None)]), b)
    runs = [await two.submit(asked(detached=True)) for _ in range(6)]
    for run in runs:
        await run.finished()
    assert BreakerState.CLOSED not in [two.fleet.places.breaker(each).state for each in two.engines[:1]]


class Reading:
    """A tokenizer with a voice of its own."""

    def __init__(self, name: str, refused: bool = False) -> None:
        self.name, self.refused = name, refused

    async def prompt(self, submission: Submission) -> Prompt:
        """Renders a prompt that says whose it is, or refuses it."""
        if self.refused:
            raise InvalidRequestError("prompt", "has no tokens")
        return Prompt(text=self.name, token_ids=tuple(self.name.encode()), tokens=len(self.name))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Tells no tokens."""
        raise NotImplementedError

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        """Tells no tokens."""
        return ()

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Turns nothing back."""
        raise NotImplementedError


@pytest.mark.asyncio
async def test_another_engine_gets_the_prompt_as_it_renders_it_itself() -> None:
    heard: list[Prompt] = []

    def hears(job: Job) -> Sequence[Step]:
        heard.append(job.prompt)
        return GOOD

    a, b = engine("a", [Fail(LOST)]), ScriptedEngine("b", script=hears)
    a.tokenizer, b.tokenizer = Reading("voice a"), Reading("voice b")
    run = await ended(house(a, b))
    assert [one.text for one in heard] == ["voice b"]
    assert run.error is None


@pytest.mark.asyncio
async def test_an_engine_that_cannot_take_the_request_is_passed_over() -> None:
    a, b, c = engine("a", [Fail(LOST)]), engine("b", GOOD), engine("c", GOOD)
    b.tokenizer = Reading("b", refused=True)
    assert attempts(await ended(house(a, b, c))) == ["a", "c"]
    # The last word is the engine's that took it.
    a = engine("a", [Fail(AUTH)])
    run = await ended(house(a, b))
    assert run.error is not None
    assert run.error.reason == "UPSTREAM_AUTH"


@pytest.mark.asyncio
async def test_an_engine_without_a_field_of_the_request_is_not_asked() -> None:
    toy = ToyModel()
    a, b = toy.engine("a", die_after=[0, 0, 0, 0, 0]), ScriptedEngine("b", fields=("prompt", "prompt_ids"))
    run = await ended(house(a, b), Submission(prompt="hi", stopping=Stopping(max_tokens=5)))
    assert set(attempts(run)) == {"a"}


@pytest.mark.asyncio
async def test_a_run_that_is_cancelled_while_it_waits_ends_at_once() -> None:
    a = engine("a", [Fail(LOST)])
    one = house(a)
    run = await one.submit(asked(detached=True))
    a.status.set(EngineState.UNAVAILABLE)
    await asyncio.sleep(5)
    assert one.fleet.places.waiting == 1
    await one.runs.cancel(one.context, run_id=run.id)
    assert run.end is not None
    assert run.end.choices[0].finish_reason is FinishReason.CANCELLED
    await one.at_rest()


Check = Callable[[Run], bool]


@pytest.mark.asyncio
async def test_every_attempt_is_told_and_those_before_the_first_text_are_first_ones() -> None:
    toy = ToyModel()
    run = await ended(
        house(toy.engine("a", die_after=[0, 20]), toy.engine("b", die_after=[0, 1])),
        Submission(prompt="hi", stopping=Stopping(max_tokens=30)),
    )
    told = [marked.marker for marked in run.log.markers if isinstance(marked.marker, Dispatched)]
    assert [one.attempt for one in told] == list(range(1, len(told) + 1))
    assert [one.continuation for one in told[:3]] == [Continuation.FIRST, Continuation.FIRST, Continuation.FIRST]
    assert told[-1].continuation is Continuation.BY_TOKENS


@pytest.mark.asyncio
async def test_a_run_whose_engines_die_after_a_few_tokens_each_time_does_not_take_them_all_with_it() -> None:
    engines = [ToyModel().engine(name, die_after=[6] * 99) for name in "abcdefgh"]
    run = await ended(house(*engines), Submission(prompt="hi", stopping=Stopping(max_tokens=400)))
    assert run.error is not None
    assert (run.error.code, run.error.reason) == (Code.DATA_LOSS, "ENGINE_LOST")
    assert attempts(run) == ["a", "b", "c", "d", "e"]
