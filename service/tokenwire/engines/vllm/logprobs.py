"""Log probabilities as vLLM tells them: tokens by their ids, whose texts are asked of its vocabulary."""

from collections.abc import Mapping, Sequence

import msgspec

from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import PromptLogprobs
from tokenwire.domain.request import Logprobs
from tokenwire.engines.failure import NOT_JSON, garbled
from tokenwire.engines.openai.answer import DONE
from tokenwire.engines.openai.logprobs import Place, best, places
from tokenwire.engines.openai.wire import Chunk
from tokenwire.engines.vllm.vocabulary import Vocabulary

_PREFIX = "token_id:"


class NamedLogprobs:
    """Reads the log probabilities of one answer.

    Args:
        asked: what the request wants to know.
        vocabulary: tells the tokens' texts.
    """

    def __init__(self, asked: Logprobs, vocabulary: Vocabulary) -> None:
        self._asked = asked
        # None keeps all that came.
        self._top_n = None if asked.all else asked.top_n or 0
        self._vocabulary = vocabulary
        self._texts: dict[int, str] = {}

    async def learn(self, payload: bytes) -> None:
        """Asks for the texts of the tokens in a payload, before it is read. Raises EngineError."""
        if payload == DONE:
            return
        try:
            choices = _decode(payload).choices or ()
        except NOT_JSON as error:
            raise garbled() from error
        named = (name for choice in choices for place in places(choice.logprobs) for name in _names(place))
        self._texts |= await self._vocabulary.texts(token for name in named if (token := _id(name)) is not None)

    def read(self, told: Sequence[Place], token_ids: Sequence[int]) -> tuple[TokenLogprob, ...]:
        """Returns what the places tell; `token_ids` are the tokens there, if they are told."""
        known = token_ids if len(token_ids) == len(told) else (None,) * len(told)
        return tuple(self._place(place, token) for place, token in zip(told, known, strict=True))

    def _place(self, place: Place, known: int | None) -> TokenLogprob:
        chosen = self._token(place.token, place.logprob)
        by_id = {_id(name): logprob for name, logprob in place.top} if self._asked.token_ids else {}
        return TokenLogprob(
            token_id=known if chosen.token_id is None else chosen.token_id,
            token=chosen.token,
            logprob=chosen.logprob,
            top=tuple(self._token(*one) for one in best(place.top, self._top_n)),
            given=tuple(
                TokenLogprob(token_id=token, token=self._texts.get(token, ""), logprob=by_id[token])
                for token in self._asked.token_ids
                if token in by_id
            ),
        )

    def _token(self, name: str, logprob: float | None) -> TokenLogprob:
        token = _id(name)
        # A front end that does not know the option tells the text instead.
        return TokenLogprob(token_id=token, token=name if token is None else self._texts[token], logprob=logprob)


async def prompt_logprobs(payload: bytes, asked: Logprobs, vocabulary: Vocabulary) -> PromptLogprobs:
    """Returns the log probabilities of the prompt's tokens from a whole answer. Raises EngineError if it has none."""
    try:
        whole = _decode_whole(payload)
    except NOT_JSON as error:
        raise garbled() from error
    choice = next(iter(whole.choices or ()), _WholeChoice())
    token_ids = choice.prompt_token_ids or whole.prompt_token_ids or []
    told = choice.prompt_logprobs or whole.prompt_logprobs or []
    if len(token_ids) != len(told):
        raise garbled()
    # The first token follows nothing, so nothing is told of it.
    texts = await vocabulary.texts([token for token, place in zip(token_ids, told, strict=True) if place is None])
    most = None if asked.all else asked.top_n or 0
    return PromptLogprobs(
        logprobs=tuple(_prompt_place(token, place, most, texts) for token, place in zip(token_ids, told, strict=True))
    )


class _Ranked(msgspec.Struct):
    logprob: float
    decoded_token: str | None = None


class _WholeChoice(msgspec.Struct):
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[int, _Ranked] | None] | None = None


class _Whole(msgspec.Struct):
    choices: list[_WholeChoice] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[int, _Ranked] | None] | None = None


_decode = msgspec.json.Decoder(Chunk).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode


def _prompt_place(
    token: int, place: dict[int, _Ranked] | None, most: int | None, texts: Mapping[int, str]
) -> TokenLogprob:
    if place is None:
        return TokenLogprob(token_id=token, token=texts[token], logprob=None)
    if token not in place:
        raise garbled()
    ranked = sorted(place.items(), key=lambda one: -one[1].logprob)[:most]
    return TokenLogprob(
        token_id=token,
        token=place[token].decoded_token or "",
        logprob=place[token].logprob,
        top=tuple(
            TokenLogprob(token_id=one, token=told.decoded_token or "", logprob=told.logprob) for one, told in ranked
        ),
    )


def _names(place: Place) -> list[str]:
    return [place.token, *(name for name, _ in place.top)]


def _id(name: str) -> int | None:
    digits = name.removeprefix(_PREFIX)
    return int(digits) if digits is not name and digits.isascii() and digits.isdigit() else None
