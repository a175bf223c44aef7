"""The one model that all simulated engines serve: what comes next depends on the text so far, and on nothing else."""

import random
from dataclasses import dataclass, field
from functools import lru_cache

from tokenwire.domain.events import FinishReason

# Ids below 256 are single bytes: the prompt's, and those of characters that the vocabulary does not have as a whole.
_RIVER = (" river", " slow", " naïve", " e\u0301", " שלום", " 水", " 👍🏽", "\n", " a")
WORDS = (*_RIVER, "b", "ab", "bc", "c", " mills", " rain", " roof")
RARE = "流字ßЖ🇩🌊"
# Some prompts are answered with these alone, so that stop strings begin all the time, and now and then are completed.
FEW = tuple(256 + WORDS.index(word) for word in ("ab", "bc", "b", "c", " a"))
STOPS = ("bca", "abab", "cb a", "bbb", "c a", "bcbc", " aab")
# What a continuation gets that does not begin with what the model would have written: it shows in every comparison.
POISON = "✗"
MAX_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Token:
    """A token's id and bytes."""

    id: int
    data: bytes


def bytes_of(ids: tuple[int, ...]) -> bytes:
    """Returns the bytes of tokens."""
    return b"".join(bytes((one,)) if one < 256 else WORDS[one - 256].encode() for one in ids)


def whole(data: bytes) -> int:
    """Returns where the last whole character ends."""
    end = len(data)
    while end:
        back = 1
        while back < 4 and back <= end and data[end - back] & 0xC0 == 0x80:
            back += 1
        if back > end:
            return end
        lead = data[end - back]
        need = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        if back == need:
            return end
        end -= back
    return 0


@lru_cache(maxsize=4096)
def answer(prompt: str, choice: int) -> tuple[Token, ...]:
    """Returns the tokens that the model writes to a prompt, all of them, for one choice."""
    chance = random.Random(f"{prompt} {choice}")
    tokens: list[Token] = []
    # No two choices begin alike, so that a continuation can tell which one it goes on with.
    tokens += (Token(byte, bytes((byte,))) for byte in f"{choice}".encode())
    length = chance.randint(4, MAX_TOKENS)
    few = is_plain(prompt)
    while len(tokens) < length:
        if few:
            word = chance.choice(FEW)
            tokens.append(Token(word, WORDS[word - 256].encode()))
        elif chance.random() < 0.35:
            tokens += (Token(byte, bytes((byte,))) for byte in chance.choice(RARE).encode())
        else:
            word = chance.randrange(len(WORDS))
            tokens.append(Token(256 + word, WORDS[word].encode()))
    return tuple(tokens)


def is_plain(prompt: str) -> bool:
    """Whether a prompt is answered with few words."""
    return prompt.startswith("plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What of a request decides its answer."""

    prompt: str
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    include_stop: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """One choice's whole answer: the truth."""

    text: str
    tokens: int
    reason: FinishReason
    matched: str | None = None


@lru_cache(maxsize=4096)
def truth(asked: Asked, choice: int) -> Whole:
    """Returns what an engine that never fails writes."""
    text = bytearray()
    tokens = answer(asked.prompt, choice)
    for count, token in enumerate(tokens, 1):
        text += token.data
        shown = bytes(text[: whole(bytes(text))]).decode()
        found = first_stop(shown, asked.stop)
        if found is not None:
            at, stop = found
            return Whole(shown[: at + len(stop) * asked.include_stop], count, FinishReason.STOP_SEQUENCE, stop)
        if count == asked.max_tokens:
            return Whole(shown, count, FinishReason.LENGTH)
    return Whole(bytes(text).decode(), len(tokens), FinishReason.STOP)


def first_stop(text: str, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """Returns where the first stop string begins, and which one it is."""
    return min(((text.find(stop), stop) for stop in stops if stop in text), default=None)


def held(text: str, stops: tuple[str, ...]) -> int:
    """Returns how many characters at the end of a text may become a stop string."""
    longest = max(map(len, stops), default=1) - 1
    return next(
        (size for size in range(min(longest, len(text)), 0, -1) if any(one.startswith(text[-size:]) for one in stops)),
        0,
    )


@dataclass(slots=True)
class Decoder:
    """Turns one choice's tokens into text as engines do: whole characters, and no stop string in the making.

    Attributes:
        done: why the choice ended, once it has.
        partial: whether its text ends with what may become a stop string.
    """

    stops: tuple[str, ...]
    include_stop: bool
    max_tokens: int | None
    done: FinishReason | None = None
    matched: str | None = None
    count: int = 0
    partial: bool = False
    _bytes: bytearray = field(default_factory=bytearray)
    _shown: int = 0

    def take(self, token: Token) -> str:
        """Takes the next token, and returns what can be shown of it and of those before."""
        self.count += 1
        self._bytes += token.data
        text = bytes(self._bytes[: whole(bytes(self._bytes))]).decode()
        found = first_stop(text, self.stops)
        if found is not None:
            at, self.matched = found
            self.done = FinishReason.STOP_SEQUENCE
            return self._show(text[: at + len(self.matched) * self.include_stop])
        if self.count == self.max_tokens:
            self.done = FinishReason.LENGTH
        size = held(text, self.stops)
        self.partial = size > 0
        keep = 0 if self.done or self.include_stop else size
        return self._show(text[: len(text) - keep])

    def rest(self) -> str:
        """Returns what was held back when the model has nothing more to say."""
        self.done = self.done or FinishReason.STOP
        return self._show(bytes(self._bytes).decode())

    def _show(self, text: str) -> str:
        shown, self._shown = text[self._shown :], max(self._shown, len(text))
        return shown
