"""Simulated engines: machines that serve the model, and the adapters by which gateways reach them."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace

from harness.telling import tell_all
from simulation import model
from simulation.loop import Process, current_process
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, Prompt, PromptRead, Tell, Totals
from tokenwire.domain.request import Submission
from tokenwire.engines import failure
from tokenwire.engines.engine import Token, Tokenizer
from tokenwire.engines.status import EngineState, ModelInfo, Status
from tokenwire.engines.support import Cell, N

MODEL = "sim"
_FIELDS = ("prompt", "prompt_ids", "sampling.n", "sampling.seed", "sampling.temperature", "stopping.max_tokens",
           "stopping.stop", "stopping.include_stop", "stopping.min_tokens")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFault:
    """What goes wrong with one job of a machine.

    Args:
        kind: kill (the machine dies), cut (this answer breaks off), stall, garble, refuse (before it is begun).
        after: tokens of the answer before that.
        in_stop: waits until a stop string may be in the making.
        seconds: how long a stall takes, or a dead machine is away.
    """

    kind: str
    after: int = 0
    in_stop: bool = False
    seconds: float = 0.0


class Machine:
    """An engine's own process, which outlives gateways.

    Args:
        name: its name.
        prompts: the prompts that clients may send.
        rng: decides its pace.
        note: is told what happens, and of faults by their kind.
        pace: seconds for a token, at most.
        ids: whether it takes and tells token ids.

    Attributes:
        merges: whether all tokens of a read come in one piece, the last of them perhaps without text.
    """

    def __init__(
        self,
        name: str,
        prompts: Sequence[str],
        rng: random.Random,
        note: Callable[..., None],
        *,
        pace: float,
        ids: bool,
    ) -> None:
        self.name = name
        self.ids = ids
        self.up = True
        self.pace = pace
        self.merges = False
        self.faults: deque[JobFault] = deque()
        self.adapters: list[Adapter] = []
        self.jobs: dict[Answer, Process | None] = {}
        self.rng = rng
        self.note = note
        self._prompts = prompts

    def kill(self, seconds: float) -> None:
        """Dies, and is back after so many seconds."""
        self.note(f"{self.name} dies for {seconds:g} s", "engine killed")
        self.up = False
        for job in list(self.jobs):
            job.fail(failure.cut())
        # Not in the gateway's context, in which this may run: the gateway may die before.
        asyncio.get_running_loop().call_later(seconds, self._revive, context=Context())

    def forget(self, process: Process) -> None:
        """Notices that a gateway has died: what it had asked for is stopped."""
        self.jobs = {job: owner for job, owner in self.jobs.items() if owner is not process}
        self.adapters = [one for one in self.adapters if one.process is not process]

    def continuation(self, prompt: Prompt) -> tuple[str, bytes]:
        """Returns which prompt a job's begins with, and what comes after it: the answer's beginning."""
        data = model.bytes_of(prompt.token_ids) if self.ids and prompt.token_ids else (prompt.text or "").encode()
        known = next(one for one in self._prompts if data.startswith(one.encode()))
        return known, data[len(known.encode()) :]

    def _revive(self) -> None:
        self.up = True
        for one in self.adapters:
            one.status.set(EngineState.READY)


class Answer:
    """One job on a machine: a pause, then some tokens, again and again."""

    def __init__(self, machine: Machine, job: Job) -> None:
        self._machine = machine
        self._waiter: asyncio.Future[None] | None = None
        self._error: TokenwireError | None = None
        self.request_id = job.submission.run.request_id
        stopping = job.submission.stopping
        prompt, begun = machine.continuation(job.prompt)
        self.prompt_tokens = len(prompt.encode()) + len(begun)
        self.decoders = [
            model.Decoder(stopping.stop, bool(stopping.include_stop), stopping.max_tokens)
            for _ in range(job.submission.n)
        ]
        self.tokens = [deque(_remaining(prompt, choice, begun)) for choice in range(job.submission.n)]

    def fail(self, error: TokenwireError) -> None:
        """Breaks off."""
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def pause(self, seconds: float) -> None:
        """Waits. Raises what it broke off with."""
        if self._error is None and seconds > 0:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, _set, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
        if self._error is not None:
            raise self._error

    def step(self, count: int) -> list[Generated]:
        """Returns the next tokens of every choice that has not ended."""
        batch: list[Generated] = []
        for choice, decoder in enumerate(self.decoders):
            told: list[Generated] = []
            for _ in range(count):
                if decoder.done is None:
                    told += self._token(choice, decoder)
            batch += _merged(told) if self._machine.merges else told
        return batch

    def _token(self, choice: int, decoder: model.Decoder) -> list[Generated]:
        batch: list[Generated] = []
        tokens, channel = self.tokens[choice], Channel(choice)
        if tokens:
            token = tokens.popleft()
            text = decoder.take(token)
            if self._machine.ids:
                batch.append(Piece(channel=channel, text=text, token_ids=(token.id,), token_count=1))
            else:
                batch.append(Piece(channel=channel, text=text, token_count=1))
        if not tokens and decoder.done is None:
            text = decoder.rest()
            if text:
                batch.append(Piece(channel=channel, text=text, token_count=0))
        if decoder.done is not None:
            batch.append(ChoiceDone(choice=choice, finish_reason=decoder.done, matched_stop=decoder.matched))
        return batch


class Adapter:
    """One gateway's way to a machine."""

    kind = "simulated"
    default_max_tokens: int | None = None
    slots: int | None = None
    carries: frozenset[str] = frozenset()
    ranks = False

    def __init__(self, machine: Machine) -> None:
        self.name = machine.name
        self.fields: Mapping[str, Cell] = dict.fromkeys(_FIELDS, N)
        self.status = Status(EngineState.READY if machine.up else EngineState.UNAVAILABLE, (ModelInfo(MODEL, 4096),))
        self.takes_ids = machine.ids
        self.tokenizer: Tokenizer | None = _Bytes() if machine.ids else None
        self.process = current_process()
        self._machine = machine
        machine.adapters.append(self)

    async def start(self) -> None:
        """Nothing to bring up."""

    async def close(self) -> None:
        """Nothing to close."""

    async def check(self) -> None:
        """Asks whether the machine is there."""
        self.status.set(EngineState.READY if self._machine.up else EngineState.UNAVAILABLE)

    def vet(self, submission: Submission) -> None:
        """Takes every value."""

    def answer_limit(self, submission: Submission) -> int | None:
        """As many as fit."""
        return None

    async def generate(self, job: Job, tell: Tell) -> None:
        """Writes the model's answer, unless the machine's next fault comes in between."""
        await tell_all(self._written(job), tell)

    async def _written(self, job: Job) -> AsyncGenerator[list[Generated], None]:
        machine = self._machine
        fault = machine.faults.popleft() if machine.faults else JobFault(kind="")
        if not machine.up:
            machine.note(f"{self.name} cannot be reached for {job.run_id}")
            self.status.set(EngineState.UNAVAILABLE)
            raise failure.unreachable()
        if fault.kind == "refuse":
            machine.note(f"{self.name} refuses", "engine refused")
            raise failure.overloaded(fault.seconds)
        answer = Answer(machine, job)
        machine.note(f"{self.name} begins {job.run_id}, {len(job.prompt.token_ids)} ids of prompt")
        machine.jobs[answer] = current_process()
        written, rng = 0, machine.rng
        try:
            await answer.pause(rng.choice((0.0, 0.05, 0.5)))
            yield [PromptRead(prompt_tokens=answer.prompt_tokens, cached_tokens=0)]
            while any(decoder.done is None for decoder in answer.decoders):
                partial = any(decoder.partial for decoder in answer.decoders)
                if fault.kind and written >= fault.after and (partial or not fault.in_stop):
                    await self._break(fault, answer)
                    fault = replace(fault, kind="")
                await answer.pause(rng.random() * machine.pace)
                count = rng.choice((1, 1, 2, 3))
                written += count
                batch = answer.step(count)
                if all(decoder.done is not None for decoder in answer.decoders):
                    batch.append(
                        Totals(
                            prompt_tokens=answer.prompt_tokens,
                            cached_tokens=0,
                            output_tokens=sum(decoder.count for decoder in answer.decoders),
                        )
                    )
                yield batch
        finally:
            machine.jobs.pop(answer, None)

    async def _break(self, fault: JobFault, answer: Answer) -> None:
        machine = self._machine
        when = "after text" if fault.after else "before text"
        match fault.kind:
            case "kill":
                machine.note(f"{self.name} is killed {when}", f"engine killed {when}")
                machine.kill(fault.seconds)
                await answer.pause(0.0)
            case "cut":
                machine.note(f"{self.name} cuts its answer {when}", f"engine cut {when}")
                raise failure.cut()
            case "garble":
                machine.note(f"{self.name} sends nonsense {when}", "engine garbled")
                raise failure.garbled()
            case "stall":
                machine.note(f"{self.name} stalls for {fault.seconds:g} s", "engine stalled")
                await answer.pause(fault.seconds)


def _remaining(prompt: str, choice: int, begun: bytes) -> list[model.Token]:
    """Returns the tokens of a choice after its beginning; poison, if the model never began like that."""
    for one in range(8) if begun else (choice,):
        tokens, at = deque(model.answer(prompt, one)), 0
        while tokens and at < len(begun) and begun.startswith(tokens[0].data, at):
            at += len(tokens.popleft().data)
        rest = begun[at:]
        if tokens and rest and tokens[0].data.startswith(rest):
            # It ends inside a token, such as where a stop string might have begun.
            data = tokens.popleft().data[len(rest) :]
            return [*(model.Token(byte, bytes((byte,))) for byte in data), *tokens]
        if not rest:
            return list(tokens)
    return [model.Token(byte, bytes((byte,))) for byte in model.POISON.encode()]


def _merged(told: list[Generated]) -> list[Generated]:
    """Tells all of one read's tokens at once, as engines do that send chunks."""
    pieces = [one for one in told if isinstance(one, Piece)]
    if len(pieces) < 2:
        return told
    whole = Piece(
        channel=pieces[0].channel,
        text="".join(one.text for one in pieces),
        token_ids=tuple(token for one in pieces for token in one.token_ids),
        token_count=sum(one.token_count or 0 for one in pieces),
    )
    return [whole, *(one for one in told if not isinstance(one, Piece))]


def _set(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Bytes:
    """A prompt's bytes are its tokens."""

    async def prompt(self, submission: Submission) -> Prompt:
        text = submission.prompt or ""
        ids = tuple(text.encode())
        return Prompt(text=text, token_ids=ids, tokens=len(ids))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        return tuple(Token(byte, "") for byte in text.encode())

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return model.bytes_of(tuple(token_ids)).decode("utf-8", "replace")
