"""Asks a tokenwire for the same, for similar and for growing prompts, and times the first token."""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypedDict

from bench.prefix.reading import Case, Reading
from bench.prefix.texts import Author
from tokenwire_client import AsyncClient, AsyncStream, Policy

# More than one: the first may have no text.
FIRST_TOKENS = 4
# A broken line would be taken up again, and timed as if it had not been.
POLICY = Policy(attempts=0)
# A model may answer with nothing at all; then it is asked something else.
TRIES = 5


class _Fixed(TypedDict):
    temperature: float
    timeout: float


# A CPU reads some 1000 tokens a second.
OPTIONS = _Fixed(temperature=0.0, timeout=120.0)


class VoidError(Exception):
    """A request that tells nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked.

    Attributes:
        repetitions: how often, each time with new texts.
        words: the prompts' lengths.
        share: how much of a similar prompt is the same, from its beginning, in words.
        opening_words: the length of a conversation's first message.
        turn_words: the length of each further one.
        turns: how many turns a conversation has.
        answer_tokens: the length of an answer at most, in tokens.
    """

    repetitions: int = 7
    words: tuple[int, ...] = (1000, 2000)
    share: float = 0.8
    opening_words: int = 600
    turn_words: int = 100
    turns: int = 8
    answer_tokens: int = 48


class Measuring:
    """Measures one engine through one server.

    Args:
        client: a connection to the server, with POLICY.
        rng: makes the texts.
        clock: seconds, from any beginning.
        tell: told how far it is.

    Attributes:
        readings: what was measured.
        void: why requests were asked again, with other texts.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        rng: random.Random,
        clock: Callable[[], float] = time.perf_counter,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.readings: list[Reading] = []
        self.void: list[str] = []
        self._client = client
        self._rng = rng
        self._author = Author(rng)
        self._clock = clock
        self._tell = tell

    async def run(self, plan: Plan) -> None:
        """Measures all of a plan. What the first repetition would pay for is paid before: buffers, compiled code."""
        await self._repetition(replace(plan, turns=2), 0)
        self.readings.clear()
        self.void.clear()
        for repetition in range(1, plan.repetitions + 1):
            await self._repetition(plan, repetition)
            self._tell(f"repetition {repetition} of {plan.repetitions}")

    async def _repetition(self, plan: Plan, repetition: int) -> None:
        for words in self._rng.sample(plan.words, len(plan.words)):
            await self._until_answered(partial(self._prompts, words, plan.share, repetition))
        await self._until_answered(partial(self._conversation, plan, repetition))

    async def _until_answered(self, measure: Callable[[], Awaitable[list[Reading]]]) -> None:
        for _ in range(TRIES):
            try:
                self.readings += await measure()
            except VoidError as error:
                self.void.append(str(error))
            else:
                return
        raise VoidError(f"{TRIES} times in a row: {self.void[-1]}")

    async def _prompts(self, words: int, share: float, repetition: int) -> list[Reading]:
        text = self._author.text(words)
        asked = {Case.COLD: text, Case.REPEATED: text, Case.SHARED: self._author.like(text, share)}
        readings = []
        for case, prompt in asked.items():
            answer = await self._ask(self._client.stream(prompt, max_tokens=FIRST_TOKENS, **OPTIONS))
            readings.append(answer.reading(case, words, repetition))
        return readings

    async def _conversation(self, plan: Plan, repetition: int) -> list[Reading]:
        # What has been said, and how many words each message has.
        said: list[tuple[str, str]] = []
        words: list[int] = []
        readings = []
        for turn in range(1, plan.turns + 1):
            words.append(plan.turn_words if said else plan.opening_words)
            said.append(("user", self._author.text(words[-1])))
            other = [("user" if place % 2 == 0 else "assistant", self._author.text(n)) for place, n in enumerate(words)]
            # Neither always comes first: what the one does to the machine would be the other's to bear.
            for case in self._rng.sample((Case.TURN, Case.COLD_TURN), 2):
                tokens = plan.answer_tokens if case is Case.TURN else FIRST_TOKENS
                messages = said if case is Case.TURN else other
                stream = self._client.stream_chat(messages, max_tokens=tokens, **OPTIONS)
                answer = await self._ask(stream)
                readings.append(answer.reading(case, turn, repetition))
                if case is Case.TURN:
                    reply = answer
            said.append(("assistant", reply.text))
            words.append(reply.tokens)
        return readings

    async def _ask(self, stream: AsyncStream) -> "_Answer":
        """Reads an answer. Raises VoidError if it has no text."""
        first = 0.0
        began = self._clock()
        async with stream:
            async for event in stream:
                if event.HasField("delta") and not first:
                    first = self._clock()
        usage = stream.usage
        if not first or usage is None:
            raise VoidError("an answer without text")
        return _Answer(
            (first - began) * 1e6, stream.text, usage.prompt_tokens, usage.cached_tokens, usage.output_tokens
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    ttft_us: float
    text: str
    prompt_tokens: int
    cached_tokens: int
    tokens: int

    def reading(self, case: Case, size: int, repetition: int) -> Reading:
        return Reading(
            case=case,
            size=size,
            repetition=repetition,
            ttft_us=round(self.ttft_us, 1),
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
        )
