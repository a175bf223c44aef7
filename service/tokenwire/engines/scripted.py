"""An engine that does as it is told: deterministic tokens, delays and faults, for tests and demos."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, Prompt, PromptRead, Tell, Totals
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Token, Tokenizer
from tokenwire.engines.status import EngineState, ModelInfo, Status
from tokenwire.engines.support import Cell, N

_FIELDS = (
    "prompt",
    "prompt_ids",
    "messages.role=SYSTEM",
    "messages.role=USER",
    "messages.role=ASSISTANT",
    "messages.content",
    "sampling.n",
    "sampling.seed",
    "sampling.temperature",
    "stopping.max_tokens",
)
_WORDS = tuple(
    "the river keeps its own slow time and carries small bright stones past sleeping mills while rain writes "  # noqa: SIM905
    "letters on every roof and nobody hurries to read them before morning comes".split()
)


@dataclass(frozen=True, slots=True)
class Emit:
    """Yields these as one read."""

    batch: tuple[Generated, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Waits for so many seconds; None waits until the engine is closed."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Waits until a test sets the event."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Fail:
    """Raises."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Cut:
    """Ends the stream without a terminator."""


Step = Emit | Pause | WaitFor | Fail | Cut
Script = Callable[[Job], Sequence[Step]]


class ScriptedEngine:
    """Plays a script for each job.

    Args:
        name: its name.
        script: the steps for a job; unset: words that depend on the prompt and the seed alone.
        seconds_per_token: the pace of the default script.
        model: the model's name.
        context_window: in tokens.
        fields: the request fields that it takes.
        slots: how many choices it writes at once, as far as the dispatcher knows.

    Attributes:
        started: how many jobs began; `running` how many are being written now; `stopped` how many were closed early.
    """

    kind = "scripted"
    takes_ids = True
    default_max_tokens: int | None = 64
    carries = frozenset({"repetition_penalty"})
    ranks = False

    def __init__(
        self,
        name: str = "scripted",
        *,
        script: Script | None = None,
        seconds_per_token: float = 0.0,
        model: str = "scripted",
        context_window: int | None = 4096,
        fields: Sequence[str] = _FIELDS,
        slots: int | None = None,
    ) -> None:
        self.name = name
        self.fields: Mapping[str, Cell] = dict.fromkeys(fields, N)
        self.status = Status(EngineState.READY, (ModelInfo(model, context_window),))
        self.tokenizer: Tokenizer | None = _Bytes()
        self.slots = slots
        self.started = 0
        self.running = 0
        self.stopped = 0
        self._script = script or _default_script(seconds_per_token)

    async def start(self) -> None:
        """Nothing to bring up."""

    async def check(self) -> None:
        """Always answers."""

    async def close(self) -> None:
        """Nothing to close."""

    def vet(self, submission: Submission) -> None:
        """Takes every value."""

    def answer_limit(self, submission: Submission) -> int | None:
        """Returns the same for every request."""
        return self.default_max_tokens

    async def generate(self, job: Job, tell: Tell) -> None:
        """Plays the script."""
        self.started += 1
        self.running += 1
        try:
            for step in self._script(job):
                match step:
                    case Emit(batch):
                        tell(list(batch))
                    case Pause(None):
                        await asyncio.get_running_loop().create_future()
                    case Pause(seconds):
                        await asyncio.sleep(seconds or 0)
                    case WaitFor(event):
                        await event.wait()
                    case Fail(error):
                        raise error
                    case Cut():
                        return
        except EngineError:
            raise
        except BaseException:
            # Cancelled, or `tell` has enough.
            self.stopped += 1
            raise
        finally:
            self.running -= 1


def words(text: str, choice: int = 0) -> list[Step]:
    """Returns steps that write a text word by word, white space kept, and end the choice."""
    steps: list[Step] = []
    for number, word in enumerate(_split(text)):
        piece = Piece(channel=Channel(choice), text=word, token_ids=(1000 + number,), token_count=1)
        steps.append(Emit((piece,)))
    steps.append(Emit((ChoiceDone(choice=choice, finish_reason=FinishReason.STOP),)))
    return steps


def _split(text: str) -> list[str]:
    parts: list[str] = []
    for word in text.split(" "):
        parts.append(word if not parts else f" {word}")
    return parts


def _default_script(seconds_per_token: float) -> Script:
    def script(job: Job) -> list[Step]:
        asked = job.submission
        text = repr((job.prompt.text, job.prompt.token_ids, asked.sampling.seed))
        limit = asked.stopping.max_tokens or 64
        steps: list[Step] = [Emit((PromptRead(prompt_tokens=job.prompt.tokens or 0, cached_tokens=0),))]
        choosers = [random.Random(hashlib.sha256(f"{choice}{text}".encode()).digest()) for choice in range(asked.n)]
        for number in range(limit):
            steps.append(Pause(seconds_per_token))
            batch = []
            for choice, chooser in enumerate(choosers):
                token = chooser.randrange(len(_WORDS))
                word = _WORDS[token] if number == 0 else f" {_WORDS[token]}"
                batch.append(Piece(channel=Channel(choice), text=word, token_ids=(token,), token_count=1))
            steps.append(Emit(tuple(batch)))
        done = [ChoiceDone(choice=choice, finish_reason=FinishReason.LENGTH) for choice in range(asked.n)]
        totals = Totals(prompt_tokens=job.prompt.tokens, cached_tokens=0, output_tokens=limit * asked.n)
        steps.append(Emit((*done, totals)))
        return steps

    return script


class _Bytes:
    """One token a byte."""

    async def prompt(self, submission: Submission) -> Prompt:
        text = submission.prompt
        if text is None:
            text = "".join(f"{message.role}: {message.content}\n" for message in submission.messages) + "assistant: "
        ids = tuple(text.encode())
        return Prompt(text=text, token_ids=ids, tokens=len(ids))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        return tuple(Token(byte, chr(byte) if byte < 128 else "") for byte in text.encode())

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return bytes(one & 0xFF for one in token_ids).decode("utf-8", "replace")
