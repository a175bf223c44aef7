"""llama.cpp's own means to render a prompt."""

from collections.abc import Callable, Sequence
from typing import Any

from tokenwire.domain.request import Message
from tokenwire.engines.engine import Token
from tokenwire.engines.llamacpp.connection import Connection


class LlamaCppTokenizer:
    """Renders prompts by the child that is alive; `connection` raises EngineError while there is none."""

    def __init__(self, connection: Callable[[], Connection]) -> None:
        self._connection = connection

    async def template(self, messages: Sequence[Message]) -> str:
        """Returns the prompt text of a chat, ready for the assistant's answer."""
        return await self._connection().template([_plain(message) for message in messages])

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Returns the tokens of a prompt text, as the server itself would read it."""
        return await self._connection().tokenize(text, whole_prompt=True)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones included."""
        return await self._connection().detokenize(token_ids)


def _plain(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.name:
        plain["name"] = message.name
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return plain
