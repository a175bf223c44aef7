"""What engines behind HTTP have in common."""

import asyncio

import pytest

from tokenwire.app import SYSTEM_CLOCK
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Generated, Job, Piece, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import garbled, unreachable
from tokenwire.engines.remote import RemoteEngine, told
from tokenwire.engines.status import EngineState, ModelInfo


class Remote(RemoteEngine):
    """Answers its checks as the test says."""

    kind = "vllm"

    def __init__(self, model: str = "") -> None:
        self.sleeps: asyncio.Queue[float] = asyncio.Queue()
        self.go_on = asyncio.Semaphore(0)
        self.answers: list[tuple[ModelInfo, ...] | Exception] = []
        super().__init__(name="remote", url="http://127.0.0.1:1/v1/", clock=SYSTEM_CLOCK, model=model, sleep=self._wait)

    async def _wait(self, seconds: float) -> None:
        self.sleeps.put_nowait(seconds)
        await self.go_on.acquire()

    async def ask(self) -> tuple[ModelInfo, ...]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def vet(self, submission: Submission) -> None:
        pass

    async def generate(self, job: Job, tell: Tell) -> None:
        tell([])


A, B = ModelInfo("a", 10), ModelInfo("b", 20)


@pytest.mark.asyncio
async def test_an_engine_that_is_down_is_asked_soon_then_less_often_and_a_bug_does_not_end_the_checks() -> None:
    engine = Remote()
    engine.answers = [(A,), *[unreachable()] * 5, ValueError("bug"), (A, B)]
    assert engine.status.state is EngineState.UNAVAILABLE
    await engine.start()
    waits = []
    for number in range(8):
        waits.append(await engine.sleeps.get())
        ready = number in (0, 7)
        assert engine.status.state is (EngineState.READY if ready else EngineState.UNAVAILABLE)
        if number < 7:
            engine.go_on.release()
    assert waits == [10.0, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 10.0]
    assert engine.status.models == (A, B)
    await engine.close()


@pytest.mark.asyncio
async def test_the_one_model_of_the_settings_is_used_even_if_it_is_not_listed() -> None:
    for listed, models in (((A, B), (A,)), ((B,), (ModelInfo("a"),))):
        engine = Remote("a")
        assert engine.status.models == (ModelInfo("a"),)
        engine.answers = [listed]
        await engine.check()
        assert engine.status.models == models
        await engine.close()


@pytest.mark.asyncio
async def test_what_was_left_is_finished_before_the_engine_is_closed_and_nothing_is_left_after() -> None:
    engine = Remote()
    done: list[str] = []

    async def work(name: str, error: Exception | None = None) -> None:
        await asyncio.sleep(0)
        if error:
            raise error
        done.append(name)

    engine.leave(work("first"))
    engine.leave(work("failing", unreachable()))
    await engine.close()
    assert done == ["first"]
    engine.leave(work("late"))
    await asyncio.sleep(0)
    assert done == ["first"]


def test_text_of_the_read_in_which_a_stream_fails_is_told_before_the_failure() -> None:
    def read(payloads: list[bytes], into: list[Generated]) -> bool:
        for payload in payloads:
            if payload == b"!":
                raise garbled()
            into.append(Piece(channel=Channel(), text=payload.decode()))
        return False

    seen: list[str] = []
    take = told(read, lambda batch: seen.append("".join(item.text for item in batch if isinstance(item, Piece))))
    assert not take([b"a"])
    with pytest.raises(EngineError):
        take([b"b", b"!"])
    assert seen == ["a", "b"]


def test_a_read_that_tells_nothing_is_told_all_the_same_and_the_end_is_passed_on() -> None:
    seen: list[list[Generated]] = []
    assert told(lambda payloads, into: payloads == [b"a"], seen.append)([b"a"])
    assert seen == [[]]
