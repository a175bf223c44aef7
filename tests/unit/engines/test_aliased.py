"""An engine under an alias: the name changes on its way in and out, and nothing else."""

from contextlib import aclosing

import pytest

from harness.telling import told_by
from tokenwire.domain.generation import Job, Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.aliased import AliasedEngine
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step, words
from tokenwire.engines.status import EngineState, Load, ModelInfo


class Spy(ScriptedEngine):
    """Notes the names by which it is asked."""

    def __init__(self) -> None:
        super().__init__("spy", script=self._noted, model="own/Model")
        self.asked: list[str] = []

    def vet(self, submission: Submission) -> None:
        self.asked.append(submission.model)

    def _noted(self, job: Job) -> list[Step]:
        self.asked += [job.model, job.submission.model]
        return words("a b")


@pytest.mark.asyncio
async def test_requests_reach_the_engine_by_its_own_name() -> None:
    spy = Spy()
    engine = AliasedEngine(spy, "shared")
    engine.vet(Submission(model="shared"))
    job = Job(run_id="r", model="shared", submission=Submission(model="shared", prompt="hi"), prompt=Prompt())
    async with aclosing(told_by(engine, job)) as batches:
        steps = [batch async for batch in batches]
    assert len(steps) == len([one for one in words("a b") if isinstance(one, Emit)])
    assert spy.asked == ["own/Model"] * 3
    assert engine.tokenizer is not None
    assert (await engine.tokenizer.prompt(Submission(model="shared", prompt="hi"))).text == "hi"


@pytest.mark.asyncio
async def test_the_first_model_is_told_by_the_alias_and_the_others_are_hidden() -> None:
    spy = Spy()
    engine = AliasedEngine(spy, "shared")
    changes: list[EngineState] = []
    engine.status.watch(lambda: changes.append(engine.status.state))
    spy.status.set(EngineState.READY, (ModelInfo("own/Model", 4096, 50_000), ModelInfo("other")))
    spy.status.load = Load(running=1, waiting=2)
    assert engine.status.models == (ModelInfo("shared", 4096, 50_000),)
    assert engine.status.model("shared").context_window == 4096
    assert (engine.status.load, changes) == (Load(running=1, waiting=2), [EngineState.READY])
    assert (engine.name, engine.kind, engine.fields) == (spy.name, spy.kind, spy.fields)
