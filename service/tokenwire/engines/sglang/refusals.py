"""What SGLang would refuse, misunderstand or die of, refused before there is a run."""

from collections.abc import Iterable

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Role, Submission
from tokenwire.engines.openai.tools import vet_tools
from tokenwire.engines.presets import temperature_and_top_p
from tokenwire.engines.sglang.chat import calls_tools, needs_chat
from tokenwire.engines.sglang.constraint import check_constraint
from tokenwire.engines.sglang.server import Server


def vet(submission: Submission, server: Server) -> None:
    """Raises InvalidRequestError, naming the field."""
    check_ids(submission, server)
    if submission.prompt == "":
        raise InvalidRequestError("prompt", "is empty")
    _check_messages(submission, server)
    if submission.constraint is not None:
        check_constraint(submission.constraint)
    _check_seed(submission, server)
    _check_stopping(submission, server)
    if submission.run.priority and server.priorities == 0:
        raise unsupported("run.priority", "SGLang was started without --enable-priority-scheduling")
    _check_tools(submission, server)
    if needs_chat(submission, server):
        _check_chat(submission)


def check_ids(submission: Submission, server: Server) -> None:
    """Refuses ids of the request that may not be the model's: SGLang may die of them, with everybody's requests."""
    output = submission.output
    fields: dict[str, Iterable[int]] = {
        "prompt_ids": submission.prompt_ids,
        "sampling.logit_bias": [token_id for token_id, _ in submission.sampling.logit_bias],
        "stopping.stop_token_ids": submission.stopping.stop_token_ids,
        "output.logprobs.token_ids": output.logprobs.token_ids if output.logprobs is not None else (),
        "output.prompt_logprobs.token_ids": output.prompt_logprobs.token_ids if output.prompt_logprobs else (),
    }
    for field, token_ids in fields.items():
        if not token_ids:
            continue
        limit = server.vocabulary
        if limit is None:
            raise unsupported(field, "this SGLang does not tell which tokens there are")
        if any(not 0 <= token_id < limit for token_id in token_ids):
            raise InvalidRequestError(
                field, "holds a token id that the model does not have", metadata={"limit": str(limit)}
            )


def _check_messages(submission: Submission, server: Server) -> None:
    if submission.messages and submission.messages[-1].role is Role.ASSISTANT:
        raise unsupported("messages.role", "SGLang reads a last message of the assistant as one of the user")
    if not server.rust and any(message.name and message.role is Role.USER for message in submission.messages):
        raise unsupported("messages.name", "SGLang takes no name of a user")


def _check_seed(submission: Submission, server: Server) -> None:
    sampling = submission.sampling
    if sampling.seed is None:
        return
    temperature, _ = temperature_and_top_p(sampling)
    greedy = temperature == 0 or sampling.top_k == 1
    if not greedy and server.seeds is False:
        raise unsupported("sampling.seed", "SGLang was started without --enable-deterministic-inference")
    if not greedy and submission.n > 1:
        raise unsupported("sampling.seed", "all choices would be the same; ask for one")


def _check_stopping(submission: Submission, server: Server) -> None:
    stopping = submission.stopping
    if stopping.ignore_eos and stopping.stop_token_ids:
        raise unsupported("stopping.stop_token_ids", "SGLang ignores them with ignore_eos")
    limit = stopping.max_tokens
    if limit is None and not needs_chat(submission, server):
        limit = server.default_max_tokens
    if limit is not None and (stopping.min_tokens or 0) > limit:
        raise InvalidRequestError(
            "stopping.min_tokens",
            f"is above max_tokens, which is {limit}",
            metadata={"limit": str(limit), "got": str(stopping.min_tokens)},
        )


def _check_tools(submission: Submission, server: Server) -> None:
    vet_tools(submission)
    if not calls_tools(submission):
        return
    if not server.tool_parser:
        # It would hold the model to calls where they are required, and then hand them out as text all the same.
        raise unsupported(
            "tools.name", "SGLang was started without --tool-call-parser: it would not tell calls from text"
        )
    if submission.constraint is not None:
        raise unsupported("constraint", "SGLang holds an answer to a constraint or to tools, not to both")


def _check_chat(submission: Submission) -> None:
    output = submission.output
    if output.prompt_logprobs is not None:
        raise unsupported("output.prompt_logprobs", "not with tools or reasoning")
    if output.logprobs is not None and output.logprobs.token_ids:
        raise unsupported("output.logprobs.token_ids", "not with tools or reasoning")


def unsupported(field: str, description: str) -> InvalidRequestError:
    """Says that this server does not have a field, or not with others of the request."""
    return InvalidRequestError(field, description, reason="FEATURE_UNSUPPORTED", metadata={"field": field})
