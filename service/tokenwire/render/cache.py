"""Rendered prompts, kept for when the same one comes again: a retry, another attempt, a batch over one conversation."""

import hashlib
from collections import OrderedDict

from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Message, Submission, Tool

# A token id in a tuple costs about 36 bytes.
TOKENS_MAX = 500_000


class PromptCache:
    """The prompts that were rendered last, by what they were made of and by engine.

    Args:
        tokens_max: how many tokens are kept in all.
    """

    def __init__(self, tokens_max: int = TOKENS_MAX) -> None:
        self._tokens_max = tokens_max
        self._tokens = 0
        self._prompts: OrderedDict[tuple[str, str, bytes], Prompt] = OrderedDict()

    def get(self, engine: str, model: str, submission: Submission) -> Prompt | None:
        """Returns the prompt of an equal prompt or chat on the same engine, or None."""
        key = (engine, model, _digest(submission))
        prompt = self._prompts.get(key)
        if prompt is not None:
            self._prompts.move_to_end(key)
        return prompt

    def put(self, engine: str, model: str, submission: Submission, prompt: Prompt) -> None:
        """Keeps a prompt, and gives up the ones that were not used for longest."""
        key = (engine, model, _digest(submission))
        self._drop(key)
        if _size(prompt) > self._tokens_max:
            return
        self._prompts[key] = prompt
        self._tokens += _size(prompt)
        while self._tokens > self._tokens_max:
            self._drop(next(iter(self._prompts)))

    def forget(self, engine: str) -> None:
        """Gives up all prompts of an engine: it may come back with another tokenizer."""
        for key in [key for key in self._prompts if key[0] == engine]:
            self._drop(key)

    def _drop(self, key: tuple[str, str, bytes]) -> None:
        prompt = self._prompts.pop(key, None)
        if prompt is not None:
            self._tokens -= _size(prompt)


def _size(prompt: Prompt) -> int:
    # Four characters of text weigh about as much as an id.
    return len(prompt.token_ids) + len(prompt.text or "") // 4 + 16


def _digest(submission: Submission) -> bytes:
    """Hashes what a prompt is made of, so that the cache does not hold conversations a second time."""
    digest = hashlib.blake2b(digest_size=24)
    parts = [
        submission.prompt,
        submission.tool_choice,
        submission.parallel_tool_calls,
        submission.reasoning,
        # Part of no prompt; but an engine may have refused it.
        submission.constraint,
        *map(_message, submission.messages),
        *map(_tool, submission.tools),
    ]
    digest.update(repr(parts).encode("utf-8", "surrogatepass"))
    return digest.digest()


def _message(message: Message) -> tuple[object, ...]:
    calls = tuple((call.id, call.name, call.arguments) for call in message.tool_calls)
    return message.role.value, message.content, calls, message.tool_call_id, message.name


def _tool(tool: Tool) -> tuple[object, ...]:
    return tool.name, tool.description, tool.parameters_schema, tool.strict
