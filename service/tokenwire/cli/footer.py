"""The line below an answer."""

from tokenwire.v1.event_pb2 import End
from tokenwire.v1.finish_pb2 import FINISH_REASON_STOP, FinishReason

_SHOWN_SEPARATOR = " · "


def footer(end: End, run_id: str) -> str:
    """Returns how fast the answer came, what it cost, why it ended unless by itself, and the run's id."""
    timings, usage = end.timings, end.usage
    facts = []
    if timings.time_to_first_token_ms:
        facts.append(f"first token {timings.time_to_first_token_ms / 1000:.2f} s")
    if timings.tokens_per_second:
        facts.append(f"{timings.tokens_per_second:.1f} tokens/s")
    facts.append(f"tokens {usage.prompt_tokens} in, {usage.cached_tokens} cached, {usage.output_tokens} out")
    reasons = [one.finish_reason for one in end.choices if one.finish_reason != FINISH_REASON_STOP]
    facts += [reason_name(reason) for reason in dict.fromkeys(reasons)]
    facts.append(run_id)
    return _SHOWN_SEPARATOR.join(facts)


def reason_name(reason: FinishReason.ValueType) -> str:
    """Returns a finish reason as people read it."""
    return FinishReason.Name(reason).removeprefix("FINISH_REASON_").lower().replace("_", " ")
