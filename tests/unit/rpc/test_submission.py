"""From a request to its run: what is refused makes no run, and a model that loads is waited for."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tokenwire.dispatch.run import Run
from tokenwire.domain.context import RequestContext
from tokenwire.domain.cursor import START
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Envelope, Phase, Progress
from tokenwire.domain.request import (
    Delivery,
    Limits,
    Logprobs,
    Output,
    RunOptions,
    Sampling,
    Stopping,
    Submission,
)
from tokenwire.engines.status import EngineState, ModelInfo
from tokenwire.engines.support import Cell, N, Support
from tokenwire.render.renderer import Renderer
from tokenwire.rpc.share import LOGPROB_BYTES, RUN_BYTES, TOKEN_BYTES, UNKNOWN_TOKENS, UNKNOWN_VOCABULARY
from tokenwire.rpc.submission import Loading, Submitter
from tokenwire.transport.call import Call, Kind
from unit.dispatch.house import House, asked, engine, say, stop


class StubCall(Call):
    """A call that keeps what is written, and when."""

    def __init__(self, context: RequestContext, kind: Kind = Kind.SERVER_STREAM) -> None:
        self.method = "/test"
        self.kind = kind
        self.context = context
        self.delivery = Delivery()
        self.messages = 0
        self.parse: Callable[[bytes], Any] = bytes
        self.written: list[tuple[float, object]] = []

    @property
    def metadata(self) -> Mapping[str, str]:
        """Holds nothing."""
        return {}

    @property
    def time_remaining(self) -> float | None:
        """Has no deadline."""
        return None

    async def write(self, message: object) -> None:
        """Keeps the message."""
        self.written.append((asyncio.get_running_loop().time(), message))


class Front:
    """A submitter in front of a house."""

    def __init__(self, **fields: Any) -> None:
        self.house = House(engine(say("one"), stop()), **fields)
        self.status = self.house.engine.status
        self._submitter = Submitter(self.house.fleet, self.house.runs, Renderer(), Loading(limit=10.0))

    async def submit(self, submission: Submission, call: StubCall | None = None) -> Run:
        """Submits, and waits for the run's end."""
        run = await self._submitter.submit(submission, call or StubCall(self.house.context))
        await run.finished()
        return run

    def made_nothing(self) -> bool:
        """Whether there is no run, and nothing is reserved."""
        return not self.house.runs.list("local") and self.house.journal.held == 0 and not self.house.engine.started


REFUSED: dict[str, tuple[Submission, str]] = {
    "a field that the engine lacks": (asked(sampling=Sampling(top_k=1)), "sampling.top_k"),
    "log probabilities": (Submission(prompt="a", output=Output(logprobs=Logprobs(top_n=1))), "output.logprobs.top_n"),
    "fewer tokens than asked for": (asked(limits=Limits(allow_partial=True)), "limits.allow_partial"),
    "a prompt without tokens": (asked(prompt=""), "prompt"),
    "a prompt that fills the window": (asked(prompt="x" * 100), "prompt"),
}


@pytest.mark.parametrize(("submission", "field"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.asyncio
async def test_what_is_refused_is_named_and_makes_no_run(submission: Submission, field: str) -> None:
    front = Front()
    front.status.models = (ModelInfo("scripted", 100),)
    with pytest.raises(InvalidRequestError) as caught:
        await front.submit(submission)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert front.made_nothing()


@pytest.mark.asyncio
async def test_what_an_engine_answers_as_a_whole_is_refused_to_a_stream_and_given_to_a_unary_call() -> None:
    front = Front()
    front.house.engine.fields = {**front.house.engine.fields, "sampling.top_k": Cell(Support.NATIVE, "", True)}
    submission = asked(sampling=Sampling(top_k=1))
    with pytest.raises(InvalidRequestError) as caught:
        await front.submit(submission)
    assert (caught.value.reason, caught.value.violations[0].field) == ("FEATURE_UNSUPPORTED", "sampling.top_k")
    assert "unary" in caught.value.message
    assert front.made_nothing()
    assert (await front.submit(submission, StubCall(front.house.context, Kind.UNARY))).error is None


@pytest.mark.asyncio
async def test_an_engine_refuses_values_before_there_is_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    front = Front()

    def vet(submission: Submission) -> None:
        raise InvalidRequestError("sampling.n", "too many")

    monkeypatch.setattr(front.house.engine, "vet", vet)
    with pytest.raises(InvalidRequestError) as caught:
        await front.submit(asked())
    assert caught.value.violations[0].field == "sampling.n"
    assert front.made_nothing()


@pytest.mark.asyncio
async def test_a_prompt_that_leaves_room_for_one_token_is_taken() -> None:
    front = Front()
    front.status.models = (ModelInfo("scripted", 100),)
    assert (await front.submit(asked(prompt="x" * 99))).error is None


@pytest.mark.asyncio
async def test_while_a_model_loads_a_stream_hears_of_it_every_second_and_then_goes_on() -> None:
    front = Front()
    front.status.set(EngineState.LOADING)
    call = StubCall(front.house.context)
    began = asyncio.get_running_loop().time()
    asyncio.get_running_loop().call_later(2.5, front.status.set, EngineState.READY)
    run = await front.submit(asked(), call)
    progress = Progress(phase=Phase.LOADING)
    assert [(round(at - began), message) for at, message in call.written] == [
        (second, Envelope(progress, START, second * 1000)) for second in (0, 1, 2)
    ]
    assert run.accepted_at - began == pytest.approx(2.5)


@pytest.mark.asyncio
async def test_a_unary_call_waits_without_a_word_and_a_model_that_loads_for_too_long_is_said() -> None:
    front = Front()
    front.status.set(EngineState.LOADING)
    call = StubCall(front.house.context, Kind.UNARY)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TokenwireError) as caught:
        await front.submit(asked(), call)
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "MODEL_LOADING")
    assert (caught.value.retryable, caught.value.retry_after) == (True, 5.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(10)
    assert call.written == []
    assert front.made_nothing()


LOGPROBS = (
    "output.logprobs.top_n",
    "output.logprobs.token_ids",
    "output.logprobs.all",
    "output.prompt_logprobs.top_n",
    "output.echo",
)
SHARES: dict[str, tuple[Submission, int | None, int]] = {
    "as asked for": (asked(stopping=Stopping(max_tokens=100)), 64, 100 * TOKEN_BYTES),
    "for each choice": (asked(sampling=Sampling(n=3)), 64, 3 * 64 * TOKEN_BYTES),
    "where nobody knows": (asked(), None, UNKNOWN_TOKENS * TOKEN_BYTES),
    "with log probabilities": (
        Submission(prompt="a", output=Output(logprobs=Logprobs(top_n=4))),
        64,
        64 * (TOKEN_BYTES + 5 * LOGPROB_BYTES),
    ),
    "with log probabilities of given tokens": (
        Submission(prompt="a", output=Output(logprobs=Logprobs(token_ids=(1, 2, 3)))),
        64,
        64 * (TOKEN_BYTES + 4 * LOGPROB_BYTES),
    ),
    "with all log probabilities": (
        Submission(prompt="a", stopping=Stopping(max_tokens=1), output=Output(logprobs=Logprobs(all=True))),
        64,
        TOKEN_BYTES + UNKNOWN_VOCABULARY * LOGPROB_BYTES,
    ),
    "with the prompt's log probabilities": (
        Submission(prompt="abc", output=Output(prompt_logprobs=Logprobs(top_n=1))),
        64,
        64 * TOKEN_BYTES + 3 * 2 * LOGPROB_BYTES,
    ),
    "with the prompt before each choice": (
        Submission(prompt="abc", sampling=Sampling(n=2), output=Output(echo=True)),
        64,
        2 * (64 * TOKEN_BYTES + 4 * 3),
    ),
}


@pytest.mark.parametrize(("submission", "default", "share"), SHARES.values(), ids=SHARES.keys())
@pytest.mark.asyncio
async def test_a_run_reserves_what_its_answer_may_need(submission: Submission, default: int | None, share: int) -> None:
    front = Front(journal_bytes=10**9)
    one = front.house.engine
    one.default_max_tokens = default
    one.fields = {**one.fields, **dict.fromkeys(LOGPROBS, N)}
    prompt = 3 * len(submission.prompt or "")
    assert (await front.submit(submission)).share == RUN_BYTES + prompt + share


@pytest.mark.asyncio
async def test_while_the_server_drains_nothing_starts_and_what_there_is_can_be_read() -> None:
    front = Front()
    run = await front.submit(asked("a"))
    await front.house.runs.drain(0)
    assert await front.submit(asked("a")) is run
    with pytest.raises(TokenwireError) as caught:
        await front.submit(Submission(prompt="hi", run=RunOptions(request_id="b")))
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "DRAINING")
