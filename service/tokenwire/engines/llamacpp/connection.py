"""The HTTP side of one child: its small endpoints, and what is known of its vocabulary."""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from tokenwire.domain.errors import EngineError, InvalidRequestError
from tokenwire.engines.engine import Token
from tokenwire.engines.failure import garbled
from tokenwire.engines.llamacpp.wire import decode_event
from tokenwire.engines.upstream import Upstream

# A text that no model begins with unless it must.
_MARKER = "#~#"
_KNOWN_SCHEMAS_MAX = 256

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
        vocabulary: how many tokens the model has; known after `open`.
    """

    def __init__(
        self, url: str, *, api_key: str, connect_timeout: float, reply_timeout: float, wall: Callable[[], float]
    ) -> None:
        self.upstream = Upstream(
            url, api_key=api_key, connect_timeout=connect_timeout, reply_timeout=reply_timeout, wall=wall
        )
        self.vocabulary = 0
        self._names: dict[int, str] = {}
        self._good_schemas: dict[str, None] = {}

    async def open(self) -> None:
        """Asks for the model's vocabulary."""
        listed = _convert(await self.upstream.get("/v1/models"), _Models)
        if not listed.data:
            raise garbled()
        self.vocabulary = listed.data[0].meta.n_vocab

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

    async def template(self, messages: list[dict[str, Any]]) -> str:
        """Returns the prompt text of OpenAI's message objects."""
        return _convert(await self.upstream.post("/apply-template", {"messages": messages}), _Rendered).prompt

    async def tokenize(self, text: str, *, whole_prompt: bool) -> tuple[Token, ...]:
        """Returns the tokens of `text`; of a whole prompt as the server itself reads one."""
        body = {"content": text, "with_pieces": True, "add_special": whole_prompt, "parse_special": whole_prompt}
        reply = _convert(await self.upstream.post("/tokenize", body), _Tokenized)
        return tuple(Token(one.id, _text(one.piece)) for one in reply.tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens; bytes that are not text on their own become the replacement character."""
        self.check_ids(token_ids, "token_ids")
        return _convert(await self.upstream.post("/detokenize", {"tokens": list(token_ids)}), _Text).content

    def check_ids(self, token_ids: Sequence[int], field: str) -> None:
        """Refuses ids that the model does not have: llama.cpp takes an id modulo 2**32, or fails."""
        if any(not 0 <= one < self.vocabulary for one in token_ids):
            raise InvalidRequestError(
                field, "holds a token id that the model does not have", metadata={"limit": str(self.vocabulary)}
            )

    async def ids(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a part of an answer."""
        return tuple(token.id for token in await self.tokenize(text, whole_prompt=False))

    async def name(self, token_id: int) -> str:
        """Returns the text of one token, from memory if it was asked before."""
        known = self._names.get(token_id)
        if known is None:
            known = self._names[token_id] = await self.detokenize((token_id,))
        return known

    async def check_schema(self, schema: dict[str, Any]) -> None:
        """Refuses a JSON Schema that llama.cpp cannot enforce.

        llama.cpp writes such a schema's error to its log alone and then answers without any constraint. So the schema
        is tried first, behind a marker: an answer without the marker was not constrained.
        """
        text = msgspec.json.encode(schema).decode()
        if text in self._good_schemas:
            return
        body = {
            "prompt": [0],
            "n_predict": len(_MARKER),
            "temperature": 0,
            "stream": True,
            "grammar": f'%llguidance {{}}\nstart: "{_MARKER}" %json {text}',
        }
        written = ""
        async with aclosing(self.upstream.events("/completion", body)) as reads:
            async for payloads in reads:
                written += "".join(event.content for event in map(decode_event, payloads))
        # Each of the tokens has a character at least, and may have more than the marker.
        if not written.startswith(_MARKER):
            raise InvalidRequestError("constraint.json_schema", "is not a JSON Schema that llama.cpp can enforce")
        self._good_schemas[text] = None
        if len(self._good_schemas) > _KNOWN_SCHEMAS_MAX:
            del self._good_schemas[next(iter(self._good_schemas))]


class _Meta(msgspec.Struct):
    n_vocab: int


class _Model(msgspec.Struct):
    meta: _Meta


class _Models(msgspec.Struct):
    data: list[_Model]


class _Rendered(msgspec.Struct):
    prompt: str


class _Text(msgspec.Struct):
    content: str


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]


class _Tokenized(msgspec.Struct):
    tokens: list[_Piece]


def _text(piece: str | list[int]) -> str:
    """Returns a piece's text; the bytes of an unfinished character are none."""
    return piece if isinstance(piece, str) else ""


def _convert(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise garbled() from error
