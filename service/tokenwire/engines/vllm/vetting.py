"""What vLLM would refuse with words that name no field of ours, or pass over in silence."""

from collections.abc import Iterator

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Constraint, Submission, ToolMode
from tokenwire.engines.openai.tools import vet_tools
from tokenwire.engines.presets import temperature_and_top_p
from tokenwire.engines.schemas import json_object
from tokenwire.engines.vllm.server import Server

# Of vLLM's sampler.
MAX_LOGPROB_TOKEN_IDS = 128
# What vLLM takes for a completion without a limit; a chat goes on to the end of the window.
COMPLETION_TOKENS_DEFAULT = 16
# The keys of a structural tag as llguidance has it; xgrammar takes these as well.
_OLD_TAG = frozenset({"triggers", "structures"})


def vet(submission: Submission, server: Server) -> None:
    """Refuses values and combinations that vLLM, or this server's front end, does not have."""
    vet_tools(submission)
    if server.rust:
        _vet_for_rust(submission, server)
    _vet_constraint(submission)
    _vet_logprobs(submission)
    _vet_min_tokens(submission)
    _vet_choices(submission)
    if submission.sampling.beam_search is not None:
        _vet_beam_search(submission, submission.sampling.beam_search.width)


def _vet_for_rust(submission: Submission, server: Server) -> None:
    if submission.n > 1:
        raise _unsupported("sampling.n", "vLLM's Rust front end has one choice an answer")
    constraint = submission.constraint
    if constraint is None:
        return
    if server.tags is False:
        if constraint.structural_tag is not None and not _is_old_tag(constraint):
            raise _unsupported("constraint.structural_tag", "this server makes its grammars with llguidance")
    elif submission.tool_choice is not ToolMode.NONE and any(tool.strict is not False for tool in submission.tools):
        # The tools' own constraint would replace it.
        raise _unsupported("constraint", "vLLM's Rust front end does not have it together with strict tools")
    if submission.stopping.ignore_eos and not server.tags:
        # A broken constraint is known by an answer that ends at once.
        raise _unsupported("stopping.ignore_eos", "this server does not have it together with a constraint")


def _is_old_tag(constraint: Constraint) -> bool:
    return json_object(constraint.structural_tag or "", "constraint.structural_tag").keys() >= _OLD_TAG


def _vet_constraint(submission: Submission) -> None:
    constraint = submission.constraint
    if constraint is None:
        return
    if constraint.json_schema is not None:
        json_object(constraint.json_schema, "constraint.json_schema")
    if constraint.structural_tag is not None:
        json_object(constraint.structural_tag, "constraint.structural_tag")
    choice = submission.tool_choice
    if isinstance(choice, str) or choice is ToolMode.REQUIRED:
        raise _unsupported("constraint", "vLLM does not have it where a tool must be called")


def _vet_logprobs(submission: Submission) -> None:
    asked = submission.output.logprobs
    if asked is None or not asked.token_ids or asked.all:
        return
    if asked.top_n:
        raise _unsupported("output.logprobs.token_ids", "vLLM does not have it together with top_n")
    if len(set(asked.token_ids)) > MAX_LOGPROB_TOKEN_IDS:
        raise InvalidRequestError(
            "output.logprobs.token_ids",
            f"vLLM takes at most {MAX_LOGPROB_TOKEN_IDS} tokens",
            metadata={"limit": str(MAX_LOGPROB_TOKEN_IDS), "got": str(len(set(asked.token_ids)))},
        )


def _vet_min_tokens(submission: Submission) -> None:
    stopping = submission.stopping
    most = stopping.max_tokens
    if most is None and not submission.messages:
        most = COMPLETION_TOKENS_DEFAULT
    if most is not None and (stopping.min_tokens or 0) > most:
        raise InvalidRequestError(
            "stopping.min_tokens",
            f"must be at most {most}, the limit of a choice",
            metadata={"limit": str(most), "got": str(stopping.min_tokens)},
        )


def _vet_choices(submission: Submission) -> None:
    temperature, _ = temperature_and_top_p(submission.sampling)
    if submission.n > 1 and temperature == 0 and submission.sampling.beam_search is None:
        raise InvalidRequestError("sampling.n", "vLLM has several choices only at a temperature above 0")


def _vet_beam_search(submission: Submission, width: int) -> None:
    if submission.n > width:
        raise InvalidRequestError(
            "sampling.n",
            f"must be at most {width}, the width of the beam search",
            metadata={"limit": str(width), "got": str(submission.n)},
        )
    field = next(_passed_over_by_beam_search(submission, width), None)
    if field is not None:
        raise _unsupported(field, "vLLM does not have it together with a beam search")


def _passed_over_by_beam_search(submission: Submission, width: int) -> Iterator[str]:
    sampling, stopping, logprobs = submission.sampling, submission.stopping, submission.output.logprobs
    if sampling.top_p is not None:
        yield "sampling.top_p"
    elif temperature_and_top_p(sampling)[1] is not None:
        yield "sampling.preset"
    values: dict[str, object] = {
        "sampling.top_k": sampling.top_k,
        "sampling.min_p": sampling.min_p,
        "sampling.repetition_penalty": sampling.repetition_penalty not in (None, 1.0),
        "sampling.presence_penalty": sampling.presence_penalty,
        "sampling.frequency_penalty": sampling.frequency_penalty,
        "sampling.seed": sampling.seed is not None,
        "sampling.logit_bias": sampling.logit_bias,
        "stopping.min_tokens": stopping.min_tokens,
        "stopping.stop": stopping.stop,
        "stopping.stop_token_ids": stopping.stop_token_ids,
        "constraint": submission.constraint,
        "tools": submission.tools,
        "output.prompt_logprobs": submission.output.prompt_logprobs,
        "run.priority": submission.run.priority,
    }
    yield from (field for field, value in values.items() if value)
    if logprobs is not None:
        # It has twice as many candidates at each place as it keeps beams.
        if logprobs.all or logprobs.token_ids:
            yield "output.logprobs.all" if logprobs.all else "output.logprobs.token_ids"
        elif (logprobs.top_n or 0) > 2 * width:
            yield "output.logprobs.top_n"


def _unsupported(field: str, description: str) -> InvalidRequestError:
    return InvalidRequestError(field, description, reason="FEATURE_UNSUPPORTED", metadata={"field": field})
