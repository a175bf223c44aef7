"""Renders a request's prompt."""

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine


async def render(submission: Submission, engine: Engine, context_window: int | None) -> Prompt:
    """Returns the prompt's text and token ids as far as the engine's means tell.

    An engine without a tokenizer gets text and messages as they came. Raises InvalidRequestError if the prompt is empty
    or does not fit into the context window.
    """
    tokenizer = engine.tokenizer
    if submission.prompt_ids:
        prompt = Prompt(token_ids=submission.prompt_ids, tokens=len(submission.prompt_ids))
    elif tokenizer is None:
        return Prompt(text=submission.prompt)
    else:
        text = submission.prompt
        if text is None:
            text = await tokenizer.template(submission.messages)
        ids = tuple(token.id for token in await tokenizer.tokenize(text))
        prompt = Prompt(text=text, token_ids=ids, tokens=len(ids))
    field = "messages" if submission.messages else "prompt"
    if not prompt.token_ids:
        raise InvalidRequestError(field, "has no tokens")
    # One place is needed for the answer.
    if context_window is not None and len(prompt.token_ids) >= context_window:
        raise InvalidRequestError(
            field,
            "is longer than the model's context window",
            reason="CONTEXT_LENGTH_EXCEEDED",
            metadata={"limit": str(context_window), "got": str(len(prompt.token_ids))},
        )
    return prompt
