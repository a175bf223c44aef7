"""What a request may not ask of llama.cpp, beyond what the table of fields says."""

from collections.abc import Sequence

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Submission
from tokenwire.engines.framing import MAX_EVENT_BYTES
from tokenwire.engines.llamacpp.grammar import grammar_of
from tokenwire.engines.llamacpp.tools import callable_tools
from tokenwire.engines.llamacpp.wire import wants_all

# What a token's log probability takes in an event, and some more.
_CANDIDATE_BYTES = 104


def check_request(submission: Submission, slots: int) -> None:
    """Refuses, naming the field, what no child would keep: more choices than slots, and what is no grammar."""
    if submission.n > slots:
        raise InvalidRequestError(
            "sampling.n",
            f"must be at most {slots}, the number of slots",
            metadata={"limit": str(slots), "got": str(submission.n)},
        )
    constraint = submission.constraint
    # Errors of llguidance's own notation are not told: the answer would be held to nothing.
    if constraint is not None and (constraint.grammar or "").lstrip().startswith("%llguidance"):
        raise InvalidRequestError("constraint.grammar", "must be in GBNF notation")
    grammar_of(submission, may_think=False, opened=False)
    if submission.stopping.ignore_eos and (constraint is not None or callable_tools(submission)):
        # A grammar that has come to its end allows nothing but the end: without it the answer would be free.
        raise InvalidRequestError("stopping.ignore_eos", "cannot be kept together with a constraint or tools")


def check_tokens(submission: Submission, vocabulary: int) -> None:
    """Refuses, naming the field, token ids that the model lacks, and log probabilities of too large a vocabulary."""
    logprobs = submission.output.logprobs
    check_ids(submission.prompt_ids, "prompt_ids", vocabulary)
    check_ids([token for token, _ in submission.sampling.logit_bias], "sampling.logit_bias", vocabulary)
    check_ids(submission.stopping.stop_token_ids, "stopping.stop_token_ids", vocabulary)
    if logprobs is None:
        return
    check_ids(logprobs.token_ids, "output.logprobs.token_ids", vocabulary)
    most = MAX_EVENT_BYTES // _CANDIDATE_BYTES
    if wants_all(logprobs) and vocabulary > most:
        raise InvalidRequestError(
            "output.logprobs.all" if logprobs.all else "output.logprobs.token_ids",
            "the model has too many tokens for it",
            metadata={"limit": str(most), "got": str(vocabulary)},
        )


def check_ids(token_ids: Sequence[int], field: str, vocabulary: int) -> None:
    """Refuses ids that the model does not have: llama.cpp takes an id modulo 2**32, or fails."""
    if any(not 0 <= one < vocabulary for one in token_ids):
        raise InvalidRequestError(
            field, "holds a token id that the model does not have", metadata={"limit": str(vocabulary)}
        )
