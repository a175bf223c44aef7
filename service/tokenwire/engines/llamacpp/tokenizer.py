"""llama.cpp's own means to render a prompt."""

from collections.abc import Callable, Sequence

from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Token
from tokenwire.engines.llamacpp.connection import Connection
from tokenwire.engines.llamacpp.prefixes import Means, Pieces, Prefixes
from tokenwire.engines.llamacpp.shape import shape_of


class LlamaCppTokenizer:
    """Renders prompts by the child that is alive; `connection` raises EngineError while there is none."""

    def __init__(self, connection: Callable[[], Connection]) -> None:
        self._connection = connection
        # Another child has the same model.
        self._prefixes = Prefixes(Means(whole=self._whole, rest=self._rest, special=self._special))

    async def prompt(self, submission: Submission) -> Prompt:
        """Returns a request's prompt; that of a chat is ready for the assistant's answer.

        Raises InvalidRequestError for an effort that the model's chat template cannot tell, and for tools or a
        constraint that llama.cpp cannot hold the answer to: here there is no run yet.
        """
        connection = self._connection()
        text = submission.prompt
        if text is None:
            text = await connection.render(connection.template.request(submission))
        grammar = shape_of(submission, text, connection.template).grammar
        if grammar is not None:
            await connection.check_grammar(grammar)
        ids = await self._ids(text) if submission.prompt is not None else await self._prefixes.ids(text)
        return Prompt(text=text, token_ids=ids, tokens=len(ids))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Returns the tokens of a prompt text, as the server itself would read it."""
        return await self._connection().tokenize(text)

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a part of an answer; special tokens in it are text."""
        return await self._connection().ids(text)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones included."""
        return await self._connection().detokenize(token_ids)

    async def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(one for one, _ in await self._whole(text))

    async def _whole(self, text: str) -> Pieces:
        return await self._connection().pieces(text, add_special=True)

    async def _rest(self, text: str) -> Pieces:
        return await self._connection().pieces(text, add_special=False)

    async def _special(self, token_id: int, text: str) -> bool:
        plain = await self._connection().pieces(text, add_special=False, parse_special=False)
        return [one for one, _ in plain] != [token_id]
