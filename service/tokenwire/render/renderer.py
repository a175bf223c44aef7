"""Renders a request's prompt by the engine's own means, and refuses what cannot be its prompt."""

from collections.abc import Iterable
from functools import partial

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine, Tokenizer
from tokenwire.engines.status import EngineState, ModelInfo
from tokenwire.render.cache import PromptCache

# What a chat template may add, in tokens: a system message of its own, and the frame of each message and tool.
TEMPLATE_TOKENS = 512
MESSAGE_TOKENS = 32


class Renderer:
    """Makes prompts of requests."""

    def __init__(self, cache: PromptCache | None = None) -> None:
        self._cache = cache or PromptCache()
        self._watched: set[str] = set()

    async def render(self, submission: Submission, engine: Engine, model: ModelInfo) -> Prompt:
        """Returns the prompt's text and token ids as far as the engine's means tell.

        An engine that reads text itself is asked only if the prompt may not fit into the window, or its text is needed.
        Raises InvalidRequestError if the prompt is empty, does not fit, or if a token id is none of the model's.
        """
        if model.vocabulary is not None:
            _check_ids(submission, model.vocabulary)
        tokenizer = engine.tokenizer
        if submission.prompt_ids:
            prompt = Prompt(token_ids=submission.prompt_ids, tokens=len(submission.prompt_ids))
        elif tokenizer is None or not (engine.takes_ids or _may_not_fit(submission, model) or _echoes_chat(submission)):
            if submission.prompt == "":
                raise InvalidRequestError("prompt", "is empty")
            prompt = Prompt(text=submission.prompt)
        else:
            prompt = await self._rendered(submission, engine, tokenizer, model)
            if not prompt.token_ids:
                raise InvalidRequestError(_field(submission), "has no tokens")
        # One place is needed for the answer.
        if prompt.tokens is not None and model.context_window is not None and prompt.tokens >= model.context_window:
            raise InvalidRequestError(
                _field(submission),
                f"has {prompt.tokens} tokens; the model's context window has {model.context_window}, with the answer's",
                reason="CONTEXT_LENGTH_EXCEEDED",
                metadata={"limit": str(model.context_window), "got": str(prompt.tokens)},
            )
        if submission.output.echo and prompt.text is None:
            if tokenizer is None:
                raise InvalidRequestError(
                    "output.echo",
                    f"the engine {engine.name} does not tell the text of this prompt",
                    reason="FEATURE_UNSUPPORTED",
                    metadata={"field": "output.echo", "engine": engine.name},
                )
            text = await tokenizer.detokenize(prompt.token_ids)
            prompt = Prompt(text=text, token_ids=prompt.token_ids, tokens=prompt.tokens)
        return prompt

    async def _rendered(self, submission: Submission, engine: Engine, tokenizer: Tokenizer, model: ModelInfo) -> Prompt:
        if engine.name not in self._watched:
            self._watched.add(engine.name)
            engine.status.watch(partial(self._look, engine))
        prompt = self._cache.get(engine.name, model.name, submission)
        if prompt is None:
            prompt = await tokenizer.prompt(submission)
            self._cache.put(engine.name, model.name, submission, prompt)
        return prompt

    def _look(self, engine: Engine) -> None:
        if engine.status.state is not EngineState.READY:
            self._cache.forget(engine.name)


def _field(submission: Submission) -> str:
    if submission.prompt_ids:
        return "prompt_ids"
    return "messages" if submission.messages else "prompt"


def _echoes_chat(submission: Submission) -> bool:
    return bool(submission.output.echo and submission.messages)


def _may_not_fit(submission: Submission, model: ModelInfo) -> bool:
    """Whether the prompt could have more tokens than the window. No token has less than a byte of text."""
    if model.context_window is None:
        return False
    texts = [submission.prompt or ""]
    for message in submission.messages:
        texts += [message.content, message.name, *(call.name + call.arguments for call in message.tool_calls)]
    for tool in submission.tools:
        texts += [tool.name, tool.description, tool.parameters_schema]
    added = TEMPLATE_TOKENS + MESSAGE_TOKENS * (len(submission.messages) + len(submission.tools))
    # A code point has four bytes at most, and counting characters costs nothing.
    characters = sum(map(len, texts))
    if 4 * characters + added < model.context_window:
        return False
    return sum(len(text.encode()) for text in texts) + added >= model.context_window


def _check_ids(submission: Submission, vocabulary: int) -> None:
    """Refuses ids that the model does not have: some engines die of them, others take them for other ones."""
    output = submission.output
    fields: dict[str, Iterable[int]] = {
        "prompt_ids": submission.prompt_ids,
        "sampling.logit_bias": (token_id for token_id, _ in submission.sampling.logit_bias),
        "stopping.stop_token_ids": submission.stopping.stop_token_ids,
        "output.logprobs.token_ids": output.logprobs.token_ids if output.logprobs else (),
        "output.prompt_logprobs.token_ids": output.prompt_logprobs.token_ids if output.prompt_logprobs else (),
    }
    for field, ids in fields.items():
        if any(not 0 <= token_id < vocabulary for token_id in ids):
            raise InvalidRequestError(
                field,
                f"holds a token id that the model does not have; they end before {vocabulary}",
                metadata={"limit": str(vocabulary)},
            )
