"""What was measured of prefix reuse, as it stands in the JSON file."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from bench.spread import ratios


class Case(StrEnum):
    """How much of a prompt the engine has read before."""

    # None of it.
    COLD = "cold"
    # All of it.
    REPEATED = "repeated"
    # The first 80 % of its words.
    SHARED = "shared"
    # All but the last message of a conversation, and the engine's own answer before it.
    TURN = "turn"
    # None of a conversation with as many messages, as long.
    COLD_TURN = "cold turn"


# What each case is compared with.
COLD_OF = {Case.REPEATED: Case.COLD, Case.SHARED: Case.COLD, Case.TURN: Case.COLD_TURN}


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    Attributes:
        case: how much of its prompt was read before.
        size: the prompt's length in words; of a turn its number, from 1.
        repetition: counted from 1; in each one all cases are measured, with texts of its own.
        ttft_us: time to the first token, as the client sees it.
        prompt_tokens: how long the engine says that the prompt is.
        cached_tokens: of these, tokens that came from the engine's cache.
    """

    case: Case
    size: int
    repetition: int
    ttft_us: float
    prompt_tokens: int
    cached_tokens: int


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """One engine.

    Attributes:
        engine: its name and version.
        model: the model's name.
        readings: all of them.
        void: why requests were asked again with other texts, each time that one was.
        given_up: why it was not measured to the end; empty if it was.
    """

    engine: str
    model: str
    readings: list[Reading]
    void: list[str] = []
    given_up: str = ""

    def sizes(self, case: Case) -> list[int]:
        """Returns the sizes that a case was measured with."""
        return sorted({one.size for one in self.readings if one.case is case})

    def ttft_us(self, case: Case, size: int) -> dict[int, float]:
        """Returns the times to the first token by repetition."""
        return {one.repetition: one.ttft_us for one in self.of(case, size)}

    def to_cold(self, case: Case, size: int) -> dict[int, float]:
        """Returns the time to the first token by that of a cold prompt of the same length, by repetition."""
        return ratios(self.ttft_us(case, size), self.ttft_us(COLD_OF[case], size))

    def of(self, case: Case, size: int) -> Iterable[Reading]:
        """Returns the readings of a case."""
        return (one for one in self.readings if one.case is case and one.size == size)
