"""The texts of single tokens, asked of vLLM and remembered."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from tokenwire.engines.failure import garbled
from tokenwire.engines.upstream import Upstream

MAX_KNOWN = 1 << 18
# Tokens asked for in one request.
BATCH_TOKENS = 4096

# A control character that has a token of its own in every byte-level vocabulary and is in no other token.
_SEPARATOR = "\x1e"
_REPLACEMENT = "\ufffd"

_T = TypeVar("_T")


class Vocabulary:
    """Tells the text of a model's tokens.

    vLLM turns a list of tokens into one text. So many tokens are asked for at once, with a token between them at which
    the text is cut; where that does not work out, in halves, down to one by one.

    Args:
        upstream: the server.
        model: returns the model to ask for; empty: the server's own.
    """

    def __init__(self, upstream: Upstream, model: Callable[[], str]) -> None:
        self._upstream = upstream
        self._model = model
        self._known: dict[int, str] = {}
        self._separator: int | None = None
        self._sought = False

    async def texts(self, token_ids: Iterable[int]) -> dict[int, str]:
        """Returns the texts of tokens, as far as each is text on its own. Raises EngineError."""
        told: dict[int, str] = {}
        unknown: list[int] = []
        for token in dict.fromkeys(token_ids):
            text = self._known.get(token)
            if text is None:
                unknown.append(token)
            else:
                told[token] = text
        if unknown:
            separator = await self._find_separator()
            for start in range(0, len(unknown), BATCH_TOKENS):
                batch = unknown[start : start + BATCH_TOKENS]
                texts = await self._ask(batch, separator)
                told.update((token, text.replace(_REPLACEMENT, "")) for token, text in zip(batch, texts, strict=True))
            self._remember({token: told[token] for token in unknown})
        return told

    async def tokenize(self, body: dict[str, Any]) -> tuple[int, ...]:
        """Returns the token ids of a /tokenize body; the model is added. Raises EngineError."""
        return tuple((await self._post("/tokenize", body, _Tokenized)).tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones included. Raises EngineError."""
        return (await self._post("/detokenize", {"tokens": list(token_ids)}, _Detokenized)).prompt

    async def _ask(self, batch: list[int], separator: int | None) -> list[str]:
        if separator is not None:
            joined = await self.detokenize([one for token in batch for one in (separator, token)])
            before, *parts = joined.split(_SEPARATOR)
            if not before and len(parts) == len(batch):
                return parts
        if len(batch) == 1:
            return [await self.detokenize(batch)]
        half = len(batch) // 2
        return await self._ask(batch[:half], separator) + await self._ask(batch[half:], separator)

    async def _find_separator(self) -> int | None:
        if not self._sought:
            tokens = await self.tokenize({"prompt": _SEPARATOR, "add_special_tokens": False})
            if tokens and await self.detokenize(tokens[-1:]) == _SEPARATOR:
                self._separator = tokens[-1]
                self._known[tokens[-1]] = _SEPARATOR
            self._sought = True
        return self._separator

    async def _post(self, path: str, body: dict[str, Any], kind: type[_T]) -> _T:
        model = self._model()
        reply = await self._upstream.post(path, {"model": model, **body} if model else body)
        try:
            return msgspec.convert(reply, kind)
        except msgspec.ValidationError as error:
            raise garbled() from error

    def _remember(self, texts: dict[int, str]) -> None:
        self._known |= texts
        for token in list(self._known)[: max(0, len(self._known) - MAX_KNOWN)]:
            del self._known[token]


class _Tokenized(msgspec.Struct):
    tokens: list[int]


class _Detokenized(msgspec.Struct):
    prompt: str
