"""llama.cpp's native `/completion`: the request's body, and the events of its answer."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tokenwire.domain.generation import Job
from tokenwire.domain.request import Logprobs, Sampling
from tokenwire.engines.failure import garbled
from tokenwire.engines.presets import temperature_and_top_p


class Progress(msgspec.Struct):
    """How much of the prompt was read, in tokens; `cache` of them were in the slot before."""

    total: int
    cache: int
    processed: int


class Timings(msgspec.Struct):
    """The final counts that tokenwire uses."""

    cache_n: int = 0


class Candidate(msgspec.Struct):
    """A token that might have been chosen; `logprob` is of the model's own distribution, before sampling."""

    id: int
    token: str
    logprob: float


class Chosen(msgspec.Struct):
    """The token that was chosen. Its own text in the event is the text sent with it, so it is not read."""

    id: int
    logprob: float
    top_logprobs: list[Candidate] = []


class Event(msgspec.Struct):
    """One event of a stream.

    `tokens` holds one id at most: those of tokens that only together are a character are missing, but
    `tokens_predicted` counts them. In an event with `prompt_progress` it is a placeholder.
    """

    stop: bool | None = None
    index: int = 0
    content: str = ""
    tokens: list[int] = []
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    prompt_progress: Progress | None = None
    completion_probabilities: list[Chosen] = []
    stop_type: str = ""
    stopping_word: str = ""
    truncated: bool = False
    timings: Timings | None = None
    error: Any = None


def request_body(
    job: Job,
    base: Mapping[str, float],
    max_tokens: int,
    window: int,
    *,
    grammar: str | None = None,
    vocabulary: int = 0,
) -> dict[str, Any]:
    """Returns the body of a streamed completion.

    Args:
        job: what to do; its prompt has ids or text.
        base: sampling values for fields that the request does not set.
        max_tokens: the limit of the answer if the request has none.
        window: tokens of prompt and answer that fit.
        grammar: what the answer is held to, in place of the request's own grammar.
        vocabulary: how many tokens the model has.
    """
    submission = job.submission
    stopping = submission.stopping
    body: dict[str, Any] = {
        "prompt": list(job.prompt.token_ids) or job.prompt.text or "",
        "stream": True,
        "return_tokens": True,
        "return_progress": True,
        "n_predict": max_tokens if stopping.max_tokens is None else stopping.max_tokens,
        "cache_prompt": not submission.kv.bypass,
        **_sampling(submission.sampling, base, window),
    }
    if stopping.stop:
        body["stop"] = list(stopping.stop)
    if stopping.ignore_eos:
        body["ignore_eos"] = True
    if grammar is None and submission.constraint is not None:
        grammar = submission.constraint.grammar
    if grammar is not None:
        body["grammar"] = grammar
    logprobs = submission.output.logprobs
    if logprobs is not None:
        # 0 would turn them off.
        body["n_probs"] = vocabulary if wants_all(logprobs) else max(1, logprobs.top_n or 0)
    return body


def wants_all(logprobs: Logprobs) -> bool:
    """Returns whether llama.cpp must tell every token's log probability: it tells the most probable ones alone."""
    return bool(logprobs.all or logprobs.token_ids)


def decode_event(payload: bytes) -> Event:
    """Returns the event of a payload; raises EngineError if it is none."""
    try:
        event = _EVENT.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise garbled() from error
    if event.stop is None and event.error is None:
        raise garbled()
    return event


_EVENT = msgspec.json.Decoder(Event)

_NATIVE_NAMES = {
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "n": "n",
}
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def _sampling(sampling: Sampling, base: Mapping[str, float], window: int) -> dict[str, Any]:
    values: dict[str, Any] = dict(base)
    temperature, top_p = temperature_and_top_p(sampling)
    chosen = {"temperature": temperature, "top_p": top_p}
    values.update({name: value for name, value in chosen.items() if value is not None})
    for field, name in _NATIVE_NAMES.items():
        value = getattr(sampling, field)
        if value is not None:
            values[name] = value
    if any(getattr(sampling, field) is not None for field in _PENALTIES):
        # llama.cpp looks back 64 tokens by default, the request means all.
        values["repeat_last_n"] = window
    if sampling.logit_bias:
        values["logit_bias"] = [[token_id, bias] for token_id, bias in sampling.logit_bias]
    return values
