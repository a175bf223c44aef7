"""A request and what it used as attributes of its spans: what was set and counted, and nothing that was said."""

from opentelemetry.util.types import AttributeValue

from tokenwire.domain.events import Usage
from tokenwire.domain.request import Submission
from tokenwire.telemetry import names


def operation_of(submission: Submission) -> str:
    """Returns what the conventions call such a request."""
    return names.CHAT if submission.messages else names.COMPLETION


def request_attributes(submission: Submission, *, content: bool) -> dict[str, AttributeValue]:
    """Returns what was asked for.

    Args:
        submission: the request.
        content: whether words of the user's own are told, such as the strings at which the answer stops.
    """
    sampling, stopping = submission.sampling, submission.stopping
    told: dict[str, AttributeValue | None] = {
        names.REQUEST_CHOICES: sampling.n if sampling.n != 1 else None,
        names.REQUEST_FREQUENCY_PENALTY: sampling.frequency_penalty,
        names.REQUEST_MAX_TOKENS: stopping.max_tokens,
        names.REQUEST_PRESENCE_PENALTY: sampling.presence_penalty,
        names.REQUEST_REASONING: submission.reasoning.name.lower() if submission.reasoning else None,
        # Wider than an attribute may be, it would be refused.
        names.REQUEST_SEED: sampling.seed if sampling.seed is None or abs(sampling.seed) < 2**63 else None,
        names.REQUEST_STOP: stopping.stop if content and stopping.stop else None,
        names.REQUEST_TEMPERATURE: sampling.temperature,
        names.REQUEST_TOP_K: sampling.top_k,
        names.REQUEST_TOP_P: sampling.top_p,
        names.OUTPUT_TYPE: _output_type(submission),
    }
    return {name: value for name, value in told.items() if value is not None}


def usage_attributes(usage: Usage) -> dict[str, AttributeValue]:
    """Returns what a run or an attempt has used."""
    told: dict[str, AttributeValue] = {
        names.USAGE_INPUT: usage.prompt_tokens,
        names.USAGE_OUTPUT: usage.output_tokens,
    }
    if usage.cached_tokens:
        told[names.USAGE_CACHED] = usage.cached_tokens
    if usage.reasoning_tokens:
        told[names.USAGE_REASONING] = usage.reasoning_tokens
    return told


def _output_type(submission: Submission) -> str | None:
    constraint = submission.constraint
    if constraint is None:
        return None
    return "json" if constraint.json_object or constraint.json_schema else "text"
