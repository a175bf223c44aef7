"""Log probabilities as OpenAI-compatible servers tell them: the legacy object of completions, or the list of chats."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tokenwire.domain.events import TokenLogprob
from tokenwire.engines.failure import NOT_JSON, garbled


class Place(NamedTuple):
    """One place of an answer: the name of the token there, its log probability, and the candidates as they came."""

    token: str
    logprob: float | None
    top: Sequence[tuple[str, float]]


def places(told: msgspec.Raw) -> list[Place]:
    """Returns the places of a chunk's `logprobs`, in either shape; none if it is absent or null."""
    raw = bytes(told)
    if raw in (b"", b"null"):
        return []
    try:
        value = _decode(raw)
    except NOT_JSON as error:
        raise garbled() from error
    if value.content:
        return [
            Place(one.token, one.logprob, [(top.token, top.logprob) for top in one.top_logprobs or ()])
            for one in value.content
        ]
    tokens = value.tokens or []
    unknown = [None] * len(tokens)
    chosen = unknown if value.token_logprobs is None else value.token_logprobs
    tops = unknown if value.top_logprobs is None else value.top_logprobs
    if not len(tokens) == len(chosen) == len(tops):
        raise garbled()
    return [
        Place(token, logprob, list((top or {}).items()))
        for token, logprob, top in zip(tokens, chosen, tops, strict=True)
    ]


def best(top: Sequence[tuple[str, float]], most: int | None) -> list[tuple[str, float]]:
    """Returns so many of the candidates (None: all), best first."""
    return sorted(top, key=lambda one: -one[1])[:most]


def without_ids(told: Sequence[Place], top_n: int) -> tuple[TokenLogprob, ...]:
    """Returns log probabilities from a server that tells tokens by their text alone."""
    return tuple(
        TokenLogprob(
            token_id=None,
            token=place.token,
            logprob=place.logprob,
            top=tuple(
                TokenLogprob(token_id=None, token=token, logprob=logprob) for token, logprob in best(place.top, top_n)
            ),
        )
        for place in told
    )


class _Candidate(msgspec.Struct):
    token: str
    logprob: float


class _Content(msgspec.Struct):
    token: str
    logprob: float | None = None
    top_logprobs: list[_Candidate] | None = None


class _Told(msgspec.Struct):
    content: list[_Content] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


_decode = msgspec.json.Decoder(_Told).decode
