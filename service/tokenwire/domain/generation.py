"""What an engine is given, and what it tells while it writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.request import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A rendered prompt. `text` and `token_ids` as far as the engine's means tell; `messages` remain in the submission.

    `tokens` is the count, or None if it is not known before the engine has read it.
    """

    text: str | None = None
    token_ids: tuple[int, ...] = ()
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt of a run. `headers` go to a remote engine with the request."""

    run_id: str
    model: str
    submission: Submission
    prompt: Prompt
    headers: Mapping[str, str] = field(default_factory=dict)


class Piece(msgspec.Struct, kw_only=True, gc=False):
    """Text of one channel as the engine cut it; ids and log probabilities where it tells them.

    `text` may be empty: the tokens then have no text of their own yet. `token_count` is None if the engine does not
    tell how many tokens this is.
    """

    # Made in C: one comes with each token, and a dataclass makes itself in Python. It holds no cycles.

    channel: Channel
    text: str
    token_ids: Sequence[int] = ()
    token_count: int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Pieces(msgspec.Struct, kw_only=True, gc=False):
    """Pieces of one channel that came one after the other in one read, each with a text and without log probabilities.

    `token_ids` holds those of each, as many as it has tokens; none where the engine does not tell them.
    """

    channel: Channel
    texts: list[str]
    token_ids: list[Sequence[int]]

    def apart(self) -> list[Piece]:
        """Returns them one by one."""
        return [
            Piece(channel=self.channel, text=text, token_ids=ids, token_count=len(ids) or None)
            for text, ids in zip(self.texts, self.token_ids, strict=True)
        ]


@dataclass(slots=True, kw_only=True)
class CallHead:
    """A tool call begins in this channel."""

    channel: Channel
    id: str
    name: str


@dataclass(slots=True, kw_only=True)
class PrefillProgress:
    """The engine is reading the prompt: its tokens, how many of them were cached, and how many are done, cached ones
    included."""

    prompt_tokens: int
    cached_tokens: int
    done_tokens: int


@dataclass(slots=True, kw_only=True)
class PromptRead:
    """The prefill is done: the prompt's tokens, how many of them were cached, and their ids where the engine tells."""

    prompt_tokens: int
    cached_tokens: int
    token_ids: Sequence[int] = ()


@dataclass(slots=True, kw_only=True)
class PromptLogprobs:
    """Log probabilities of all the prompt's tokens, in order."""

    logprobs: tuple[TokenLogprob, ...]


@dataclass(slots=True, kw_only=True)
class ChoiceDone:
    """One choice ended."""

    choice: int
    finish_reason: FinishReason
    matched_stop: str | int | None = None


@dataclass(slots=True, kw_only=True)
class Totals:
    """The engine's own final counts, over all choices; None where it does not tell."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


Generated = Piece | Pieces | CallHead | PrefillProgress | PromptRead | PromptLogprobs | ChoiceDone | Totals


def taken_apart(told: Sequence[Generated]) -> list[Generated]:
    """Returns the same with Pieces as single ones."""
    single: list[Generated] = []
    for item in told:
        if isinstance(item, Pieces):
            single += item.apart()
        else:
            single.append(item)
    return single


# Takes what one read of an engine tells. It runs where the bytes arrive: it must not wait.
Tell = Callable[[list[Generated]], None]
