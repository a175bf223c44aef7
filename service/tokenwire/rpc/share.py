"""How much of the journal is reserved for a run when it is accepted."""

from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Logprobs, Submission
from tokenwire.engines.status import ModelInfo

# What a token costs in the journal: its text, an index entry and its id; a log probability is an object of its own.
TOKEN_BYTES = 32
LOGPROB_BYTES = 240
RUN_BYTES = 4096
# Reserved for a run whose length nobody knows; it may outgrow it.
UNKNOWN_TOKENS = 4096
# Taken for a vocabulary whose size nobody told.
UNKNOWN_VOCABULARY = 200_000


def share_of(submission: Submission, prompt: Prompt, model: ModelInfo, default_max_tokens: int | None) -> int:
    """Returns the bytes that a run may hold: what is asked for, not what will come."""
    tokens = submission.stopping.max_tokens or default_max_tokens
    if tokens is None:
        tokens = min(model.context_window or UNKNOWN_TOKENS, UNKNOWN_TOKENS)
    output = submission.output
    answer = submission.n * tokens * (TOKEN_BYTES + LOGPROB_BYTES * _entries(output.logprobs, model))
    told = 0
    if output.prompt_logprobs is not None:
        read = prompt.tokens or len(submission.prompt or "")
        told = read * LOGPROB_BYTES * _entries(output.prompt_logprobs, model)
    return RUN_BYTES + _asked_bytes(submission) + _echoed_bytes(submission, prompt) + answer + told


def _entries(logprobs: Logprobs | None, model: ModelInfo) -> int:
    """How many log probabilities there are for a token."""
    if logprobs is None:
        return 0
    if logprobs.all:
        return model.vocabulary or UNKNOWN_VOCABULARY
    return 1 + (logprobs.top_n or 0) + len(logprobs.token_ids)


def _asked_bytes(submission: Submission) -> int:
    """What the request itself holds while its run lives: its text, once more as rendered, and its token ids."""
    texts = [submission.prompt or "", *(message.content for message in submission.messages)]
    return 3 * sum(len(text) for text in texts) + 8 * len(submission.prompt_ids)


def _echoed_bytes(submission: Submission, prompt: Prompt) -> int:
    return 4 * len(prompt.text or "") * submission.n if submission.output.echo else 0
