"""SGLang's own means to render a prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Token
from tokenwire.engines.failure import garbled
from tokenwire.engines.sglang.chat import rendered_fields
from tokenwire.engines.sglang.choice import REPLACEMENT
from tokenwire.engines.sglang.replies import Text, Texts, Tokens, convert
from tokenwire.engines.upstream import Upstream

_KNOWN_TOKENS_MAX = 65_536


class SglangTokenizer:
    """Renders prompts by the endpoints of one server, as long as it serves the same model."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._texts: dict[int, str] = {}

    async def prompt(self, submission: Submission) -> Prompt:
        """Returns a request's prompt; that of a chat is ready for the assistant's answer, and has no text here."""
        text = submission.prompt
        ids = await self._ids(rendered_fields(submission) if text is None else {"prompt": text})
        return Prompt(text=text, token_ids=ids, tokens=len(ids))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Returns the tokens of a prompt text, as the server itself would read it."""
        ids = await self._ids({"prompt": text})
        texts = await self._texts_of(ids)
        return tuple(Token(one, texts[one]) for one in ids)

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a part of an answer."""
        return await self._ids({"prompt": text, "add_special_tokens": False})

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones included."""
        if not token_ids:
            return ""
        return convert(await self._detokenized(list(token_ids)), Text).text

    async def _ids(self, fields: dict[str, Any]) -> tuple[int, ...]:
        return tuple(convert(await self._upstream.post("/v1/tokenize", fields), Tokens).tokens)

    async def _texts_of(self, token_ids: Sequence[int]) -> Mapping[int, str]:
        """Returns each token's own text; those that were not met before are asked for all at once."""
        known = {one: self._texts.get(one) for one in token_ids}
        new = [one for one, text in known.items() if text is None]
        asked = convert(await self._detokenized([[one] for one in new]), Texts).text if new else []
        if len(asked) != len(new):
            raise garbled()
        # A part of a character is no text on its own.
        learnt = {one: "" if REPLACEMENT in text else text for one, text in zip(new, asked, strict=True)}
        if len(self._texts) + len(learnt) > _KNOWN_TOKENS_MAX:
            self._texts.clear()
        self._texts.update(learnt)
        return {one: learnt[one] if text is None else text for one, text in known.items()}

    async def _detokenized(self, tokens: list[int] | list[list[int]]) -> Any:
        return await self._upstream.post("/v1/detokenize", {"tokens": tokens, "skip_special_tokens": False})
