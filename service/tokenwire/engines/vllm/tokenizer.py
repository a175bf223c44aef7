"""vLLM's own means to render a prompt."""

from collections.abc import Callable, Sequence
from typing import Any

from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import ReasoningEffort, Submission, ToolMode
from tokenwire.engines.engine import Token
from tokenwire.engines.openai.tools import message_object
from tokenwire.engines.vllm.request import tools_told
from tokenwire.engines.vllm.server import Server
from tokenwire.engines.vllm.vocabulary import Vocabulary


class VllmTokenizer:
    """Renders prompts as vLLM's own endpoints would.

    Args:
        vocabulary: has the endpoints.
        server: returns what is known of the server.
    """

    def __init__(self, vocabulary: Vocabulary, server: Callable[[], Server] = Server) -> None:
        self._vocabulary = vocabulary
        self._server = server

    async def prompt(self, submission: Submission) -> Prompt:
        """Returns a request's prompt; that of a chat is ready for the assistant's answer."""
        if submission.prompt is not None:
            ids = await self._vocabulary.tokenize({"prompt": submission.prompt, "add_special_tokens": True})
            return Prompt(text=submission.prompt, token_ids=ids, tokens=len(ids))
        body: dict[str, Any] = {
            "messages": [message_object(message) for message in submission.messages],
            "add_generation_prompt": True,
        }
        server = self._server()
        # The Rust front end does not tell of tools that must not be called.
        if submission.tools and not (server.rust and submission.tool_choice is ToolMode.NONE):
            body["tools"] = tools_told(submission, server)["tools"]
        effort = submission.reasoning
        if effort is not None:
            # What the chat endpoint makes of reasoning_effort; templates without these variables pass them over.
            body["chat_template_kwargs"] = {
                "reasoning_effort": effort.name.lower(),
                "enable_thinking": effort is not ReasoningEffort.NONE,
            }
        ids = await self._vocabulary.tokenize(body)
        return Prompt(text=await self._vocabulary.detokenize(ids), token_ids=ids, tokens=len(ids))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Returns the tokens of a prompt text, as the completions endpoint would read it.

        `return_token_strs` of vLLM tells how the vocabulary spells a token, which is not its text.
        """
        ids = await self._vocabulary.tokenize({"prompt": text, "add_special_tokens": True})
        texts = await self._vocabulary.texts(ids)
        return tuple(Token(one, texts[one]) for one in ids)

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a part of an answer."""
        return await self._vocabulary.tokenize({"prompt": text, "add_special_tokens": False})

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens, special ones included."""
        return await self._vocabulary.detokenize(token_ids)
