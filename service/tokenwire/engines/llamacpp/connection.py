"""The HTTP side of one child: its small endpoints, and what is known of its model."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from tokenwire.domain.errors import EngineError, InvalidRequestError
from tokenwire.engines.engine import Token
from tokenwire.engines.failure import garbled
from tokenwire.engines.llamacpp.grammar import MARKER, Grammar
from tokenwire.engines.llamacpp.limits import check_ids
from tokenwire.engines.llamacpp.prefixes import Pieces
from tokenwire.engines.llamacpp.template import TRIAL, ChatTemplate
from tokenwire.engines.llamacpp.wire import decode_event
from tokenwire.engines.upstream import Upstream

_KNOWN_GRAMMARS_MAX = 256

_T = TypeVar("_T")


class Connection:
    """Talks to one child.

    Args:
        url: its address.
        api_key: the key that it takes.
        connect_timeout: seconds to wait for a connection.
        reply_timeout: seconds to wait for a plain reply.
        wall: wall-clock seconds.

    Attributes:
        upstream: for streams.
        vocabulary: how many tokens the model has.
        end_id: the token with which the model ends an answer, if there is one.
        template: what the model's chat template can do.

    The last three are known after `open`.
    """

    def __init__(
        self, url: str, *, api_key: str, connect_timeout: float, reply_timeout: float, wall: Callable[[], float]
    ) -> None:
        self.upstream = Upstream(
            url, api_key=api_key, connect_timeout=connect_timeout, reply_timeout=reply_timeout, wall=wall
        )
        self.vocabulary = 0
        self.end_id: int | None = None
        self.template = ChatTemplate()
        self._names: dict[int, str] = {}
        self._good_grammars: dict[bytes, None] = {}

    async def open(self) -> None:
        """Asks for the model's vocabulary, the end of its answers and its chat template."""
        listed = _convert(await self.upstream.get("/v1/models"), _Models)
        if not listed.data:
            raise garbled()
        self.vocabulary = listed.data[0].meta.n_vocab

        told = _convert(await self.upstream.get("/props"), _Properties)
        end = await self.pieces(told.eos_token, add_special=False) if told.eos_token else ()
        self.end_id = end[0][0] if len(end) == 1 else None
        try:
            trial = await self.render(dict(TRIAL))
        except EngineError:
            # Some templates refuse what they do not know.
            trial = ""
        self.template = ChatTemplate.of(told.chat_template, trial)

    async def close(self) -> None:
        """Closes every connection."""
        await self.upstream.close()

    async def healthy(self) -> bool:
        """Returns whether the server answers."""
        try:
            await self.upstream.get("/health")
        except EngineError:
            return False
        return True

    async def render(self, body: dict[str, Any]) -> str:
        """Returns the prompt text of OpenAI's message objects."""
        return _convert(await self.upstream.post("/apply-template", body), _Rendered).prompt

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Returns the tokens of a whole prompt, as the server itself reads one."""
        return tuple(Token(one, _text(piece)) for one, piece in await self.pieces(text, add_special=True))

    async def pieces(self, text: str, *, add_special: bool, parse_special: bool = True) -> Pieces:
        """Returns the tokens of `text`, each with its bytes.

        Args:
            text: what to read.
            add_special: with the tokens that the model wants around a whole prompt.
            parse_special: special tokens in it are taken as such.
        """
        body = {"content": text, "with_pieces": True, "add_special": add_special, "parse_special": parse_special}
        reply = _convert(await self.upstream.post("/tokenize", body), _Tokenized)
        return tuple((one.id, _bytes(one.piece)) for one in reply.tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens; bytes that are not text on their own become the replacement character."""
        check_ids(token_ids, "token_ids", self.vocabulary)
        return _convert(await self.upstream.post("/detokenize", {"tokens": list(token_ids)}), _Text).content

    async def ids(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a part of an answer."""
        return tuple(one for one, _ in await self.pieces(text, add_special=False, parse_special=False))

    async def name(self, token_id: int) -> str:
        """Returns the text of one token, from memory if it was asked before."""
        known = self._names.get(token_id)
        if known is None:
            known = self._names[token_id] = await self.detokenize((token_id,))
        return known

    async def check_grammar(self, grammar: Grammar) -> None:
        """Refuses a grammar that llama.cpp cannot hold an answer to, by the field that asks for it.

        llama.cpp writes the errors of a grammar in this notation to its log alone and then answers without any. So the
        grammar is tried first, behind a marker: an answer without the marker was held to nothing.
        """
        if grammar.inner is not None:
            await self.check_grammar(grammar.inner)
        trial = grammar.trial()
        digest = hashlib.sha256(trial.encode()).digest()
        if digest in self._good_grammars:
            return
        body = {"prompt": [0], "n_predict": len(MARKER), "temperature": 0, "stream": True, "grammar": trial}
        written = ""
        async with aclosing(self.upstream.events("/completion", body)) as reads:
            async for payloads in reads:
                written += "".join(event.content for event in map(decode_event, payloads))
        # Each of the tokens has a character at least, and may have more than the marker.
        if not written.startswith(MARKER):
            raise InvalidRequestError(grammar.field, "is not what llama.cpp can hold an answer to")
        self._good_grammars[digest] = None
        if len(self._good_grammars) > _KNOWN_GRAMMARS_MAX:
            del self._good_grammars[next(iter(self._good_grammars))]


class _Meta(msgspec.Struct):
    n_vocab: int


class _Model(msgspec.Struct):
    meta: _Meta


class _Models(msgspec.Struct):
    data: list[_Model]


class _Properties(msgspec.Struct):
    chat_template: str = ""
    eos_token: str = ""


class _Rendered(msgspec.Struct):
    prompt: str


class _Text(msgspec.Struct):
    content: str


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]


class _Tokenized(msgspec.Struct):
    tokens: list[_Piece]


def _bytes(piece: str | list[int]) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def _text(piece: bytes) -> str:
    """Returns a piece's text; the bytes of an unfinished character are none."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return ""


def _convert(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise garbled() from error
