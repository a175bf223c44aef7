"""An embedded engine for a test, and means to look at its child."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from harness.telling import told_by
from tokenwire.domain.context import Clock
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Job, Piece, Prompt, PromptRead, Totals
from tokenwire.domain.request import Message, Role, Stopping, Submission
from tokenwire.engines.engine import Engine, Tokenizer
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.llamacpp.connection import Connection
from tokenwire.engines.status import EngineState

# Fetched once, and kept beside the other tools of the tests.
MODELS = Path(__file__).parents[2] / ".cache" / "models"
# Marks a child that belongs to no engine of one test.
SHARED_CHILD = "TOKENWIRE_SHARED_CHILD"
SLOTS = 3
CONTEXT = 256
CLOCK = Clock(monotonic=time.monotonic, wall=time.time)


@dataclass
class Result:
    """What one job gave."""

    generated: list[Generated]

    def pieces(self, choice: int = 0) -> list[Piece]:
        return [item for item in self.generated if isinstance(item, Piece) and item.channel.choice == choice]

    def text(self, choice: int = 0, kind: ChannelKind = ChannelKind.TEXT, index: int = 0) -> str:
        channel = Channel(choice, kind, index)
        return "".join(piece.text for piece in self.pieces(choice) if piece.channel == channel)

    def calls(self, choice: int = 0) -> list[tuple[str, str]]:
        """Returns the names and arguments of a choice's tool calls."""
        heads = [item for item in self.generated if isinstance(item, CallHead) and item.channel.choice == choice]
        return [(one.name, self.text(choice, ChannelKind.TOOL_CALL, one.channel.index)) for one in heads]

    def ids(self, choice: int = 0) -> list[int]:
        return [one for piece in self.pieces(choice) for one in piece.token_ids]

    def done(self, choice: int = 0) -> ChoiceDone:
        return next(item for item in self.generated if isinstance(item, ChoiceDone) and item.choice == choice)

    @property
    def prompt(self) -> PromptRead:
        return next(item for item in self.generated if isinstance(item, PromptRead))

    @property
    def totals(self) -> Totals:
        return next(item for item in self.generated if isinstance(item, Totals))


@asynccontextmanager
async def started(cache: Path, logs: Path, **options: Any) -> AsyncGenerator[LlamaCppEngine, None]:
    """Runs an engine; its child is there when the body begins."""
    options = {"slots": SLOTS, "context_per_slot": CONTEXT, "restart_pause_min": 0.05, **options}
    engine = LlamaCppEngine(name="embedded", cache_dir=cache, log_dir=logs, clock=CLOCK, rng=Random(1), **options)
    try:
        await engine.start()
        await reaches(engine, EngineState.READY)
        yield engine
    finally:
        await engine.close()


async def reaches(engine: Engine, state: EngineState) -> None:
    async with asyncio.timeout(100):
        while engine.status.state is not state:
            await engine.status.changed()


def tokenizer_of(engine: Engine) -> Tokenizer:
    assert engine.tokenizer is not None
    return engine.tokenizer


async def job(engine: Engine, submission: Submission) -> Job:
    """Vets a submission and renders its prompt as the service does."""
    engine.vet(submission)
    ids = submission.prompt_ids
    prompt = Prompt(token_ids=ids, tokens=len(ids)) if ids else await tokenizer_of(engine).prompt(submission)
    return Job(run_id="run", model="model", submission=submission, prompt=prompt)


async def answered(engine: Engine, submission: Submission) -> "Result":
    """Runs a submission to its end."""
    generated: list[Generated] = []
    async with aclosing(told_by(engine, await job(engine, submission))) as batches:
        async for batch in batches:
            generated += batch
    return Result(generated)


async def run(engine: Engine, prompt: str = "Once upon a time", max_tokens: int = 8, **fields: Any) -> Result:
    """Continues a prompt."""
    stopping = replace(fields.pop("stopping", Stopping()), max_tokens=max_tokens)
    text = None if fields.get("prompt_ids") else prompt
    return await answered(engine, Submission(prompt=text, stopping=stopping, **fields))


async def chat(engine: Engine, *messages: str | Message, max_tokens: int = 60, **fields: Any) -> Result:
    """Answers a chat; a text is the user's."""
    said = tuple(Message(role=Role.USER, content=one) if isinstance(one, str) else one for one in messages)
    stopping = replace(fields.pop("stopping", Stopping()), max_tokens=max_tokens)
    return await answered(engine, Submission(messages=said, stopping=stopping, **fields))


def endless(**fields: Any) -> Submission:
    stopping = Stopping(max_tokens=CONTEXT - 20, ignore_eos=True)
    return Submission(prompt="Once upon a time", stopping=stopping, **fields)


def connection_of(engine: LlamaCppEngine) -> Connection:
    assert engine._connection is not None
    return engine._connection


async def busy_slots(engine: LlamaCppEngine) -> int:
    slots = await connection_of(engine).upstream.get("/slots")
    return sum(slot["is_processing"] for slot in slots)


async def slots_are_freed(engine: LlamaCppEngine, seconds: float = 2.0) -> None:
    async with asyncio.timeout(seconds):
        while await busy_slots(engine):
            pass


def child_of(engine: LlamaCppEngine) -> int:
    """Returns the process id of the engine's child, the one that there is."""
    assert engine.status.state is EngineState.READY
    tasks = Path("/proc/self/task").glob("*/children")
    children = [int(one) for path in tasks for one in path.read_text().split()]
    (child,) = [
        one
        for one in children
        if b"llamacpp/child.py" in Path(f"/proc/{one}/cmdline").read_bytes()
        and SHARED_CHILD.encode() not in Path(f"/proc/{one}/environ").read_bytes()
    ]
    return child


def runs(pid: int) -> bool:
    """Returns whether a process lives; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def drain(engine: Engine, one: Job) -> None:
    async with aclosing(told_by(engine, one)) as batches:
        async for _ in batches:
            pass
