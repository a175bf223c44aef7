"""The adapter and the stand-in of an Ollama, and what the one tells of the other."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.ollama_stand_in import OllamaStandIn, ollama_stand_in
from harness.telling import told_by
from tokenwire.domain.context import Clock
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Job, Piece, Prompt, Totals
from tokenwire.domain.request import Message, Role, Submission
from tokenwire.engines.ollama.adapter import OllamaEngine

CLOCK = Clock(monotonic=lambda: 0.0, wall=lambda: 1_792_567_680.0)
HI = (Message(role=Role.USER, content="hi"),)


@dataclass(slots=True)
class Told:
    """What an answer told: text by channel, heads, log probabilities, ends and the last counts."""

    texts: dict[Channel, str] = field(default_factory=dict)
    heads: list[CallHead] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    ends: list[ChoiceDone] = field(default_factory=list)
    totals: Totals | None = None

    def add(self, batch: list[Generated]) -> None:
        """Takes one read."""
        for item in batch:
            match item:
                case Piece():
                    assert not self.ends
                    self.texts[item.channel] = self.texts.get(item.channel, "") + item.text
                    self.logprobs.extend(item.logprobs)
                case CallHead():
                    self.heads.append(item)
                case ChoiceDone():
                    self.ends.append(item)
                case Totals():
                    self.totals = item
                case _:
                    raise AssertionError(item)


def job(submission: Submission, *, model: str = "tiny", run_id: str = "r") -> Job:
    """Returns the job of a request whose prompt was not rendered."""
    return Job(run_id=run_id, model=model, submission=submission, prompt=Prompt(text=submission.prompt))


def engine_at(url: str, **options: Any) -> OllamaEngine:
    """Returns the adapter of the engine there; the caller closes it."""
    return OllamaEngine(name="o", url=url, clock=CLOCK, **options)


@asynccontextmanager
async def running(**settings: Any) -> AsyncGenerator[tuple[OllamaEngine, OllamaStandIn], None]:
    """Runs a stand-in, with these settings, and the adapter of it as long as the block."""
    async with ollama_stand_in(**settings) as stand_in:
        engine = engine_at(stand_in.url)
        try:
            yield engine, stand_in
        finally:
            await engine.close()


async def told(engine: OllamaEngine, submission: Submission, *, model: str = "tiny") -> Told:
    """Returns the whole answer."""
    whole = Told()
    async with aclosing(told_by(engine, job(submission, model=model))) as batches:
        async for batch in batches:
            whole.add(batch)
    return whole
