"""What an engine's refusal means to a caller. The engine's own words are not passed on: they may hold the prompt."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from tokenwire.domain.errors import Code, EngineError, Violation

RETRY_AFTER_DEFAULT = 1.0
RETRY_AFTER_MAX = 60.0

# The reason of the one failure that is not an engine's.
GATEWAY_EXHAUSTED = "GATEWAY_EXHAUSTED"

# What msgspec raises on bytes that are not the expected JSON; the last two are not of its own kind.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_CONTEXT = re.compile(r"exceed_context_size|context (length|size|window)|maximum model length", re.IGNORECASE)
_LIMIT = re.compile(
    r"(?:context length|context size|context window|model length)(?: is| of)?:? \(?(\d{1,9})\b", re.IGNORECASE
)
_GOT = re.compile(
    r"contains (?:at least )?(\d{1,9}) input tokens|\((?:length )?(\d{1,9})(?: tokens)?\) (?:is longer|exceeds)"
    r"|total of (\d{1,9}) tokens|requested (\d{1,9}) tokens",
    re.IGNORECASE,
)
_MODEL = re.compile(r"(?s)model_not_found|model .{0,80}(not (exist|found)|unknown)|NotFoundError", re.IGNORECASE)
_MEMORY = re.compile(r"out ?of ?memory|kv cache is full|no space in kv", re.IGNORECASE)
# What a constraint becomes in an engine; a tool's schema becomes one as well.
_GRAMMAR = re.compile(r"(into a|invalid|compile \w{1,20}|parse) grammar|grammar error|json schema error", re.IGNORECASE)
_BAD_REQUEST = re.compile(r"invalid_?request|bad_? ?request", re.IGNORECASE)
# The request reached something that is not the API we speak: nothing that a caller could mend.
_WRONG_ENDPOINT = frozenset({404, 405, 406, 411, 415, 421, 426})
# An engine's parameters and our fields. Others are not named: what an engine calls a parameter may hold the prompt.
_FIELDS = {
    "model": "model",
    "prompt": "prompt",
    "input_tokens": "prompt",
    "messages": "messages",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "top_k": "sampling.top_k",
    "min_p": "sampling.min_p",
    "repetition_penalty": "sampling.repetition_penalty",
    "presence_penalty": "sampling.presence_penalty",
    "frequency_penalty": "sampling.frequency_penalty",
    "seed": "sampling.seed",
    "logit_bias": "sampling.logit_bias",
    "n": "sampling.n",
    "max_tokens": "stopping.max_tokens",
    "max_completion_tokens": "stopping.max_tokens",
    "min_tokens": "stopping.min_tokens",
    "stop": "stopping.stop",
    "stop_token_ids": "stopping.stop_token_ids",
    "response_format": "constraint",
    "structured_outputs": "constraint",
    "logprobs": "output.logprobs",
    "top_logprobs": "output.logprobs",
    "prompt_logprobs": "output.prompt_logprobs",
    "logprob_token_ids": "output.logprobs.token_ids",
    "cache_salt": "kv.cache_salt",
    "priority": "run.priority",
    "use_beam_search": "sampling.beam_search.width",
    "length_penalty": "sampling.beam_search.length_penalty",
}
# How vLLM's Rust front end begins where it names a parameter in words alone; what a caller wrote comes after it.
_NAMED = re.compile(
    r"`?(\w{1,30})`? must be |(\w{1,30}): Validation error|requested (\w{1,30}) of "
    r"|token_id\(s\) \[[\d, ]*\] in (\w{1,30}) are out of vocabulary"
    r"|Failed to deserialize the JSON body into the target type: (\w{1,30}): "
)


def retry_after(value: str | None, now: float) -> float:
    """Reads a Retry-After header (seconds or a date) and bounds it; `now` is wall-clock seconds."""
    if value is None:
        return RETRY_AFTER_DEFAULT
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            # A date without a zone is UTC, never this machine's zone.
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (TypeError, ValueError, OverflowError, IndexError):
            return RETRY_AFTER_DEFAULT
    if seconds != seconds:
        return RETRY_AFTER_DEFAULT
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


def refusal(status: int, body: bytes, *, wait: float = RETRY_AFTER_DEFAULT) -> EngineError:
    """Turns an HTTP status and an error body, of whatever shape, into an error; `wait` is its Retry-After."""
    details = _details(body)
    text = " ".join(str(details.get(key) or "") for key in ("message", "type", "code"))
    if status < 400:
        # A redirect is not followed: the answer must come from the address that was configured.
        return EngineError(Code.UNAVAILABLE, "UPSTREAM_PROTOCOL", "the engine did not answer as an engine does")
    if status in (401, 403):
        return EngineError(Code.INTERNAL, "UPSTREAM_AUTH", "the engine does not accept the gateway's credential")
    if _CONTEXT.search(text):
        return EngineError(
            Code.INVALID_ARGUMENT,
            "CONTEXT_LENGTH_EXCEEDED",
            "the request does not fit into the model's context window",
            metadata=_numbers(details, text),
        )
    # In a refusal of the request such words are rather the caller's own, quoted.
    if _MEMORY.search(text) and (status >= 500 or status == 429):
        return _retryable("ENGINE_OUT_OF_MEMORY", "the engine is out of memory", wait, Code.RESOURCE_EXHAUSTED)
    if status == 404 and _MODEL.search(text):
        return EngineError(Code.NOT_FOUND, "MODEL_NOT_FOUND", "the engine does not know the model")
    if status in _WRONG_ENDPOINT:
        return EngineError(Code.UNAVAILABLE, "UPSTREAM_PROTOCOL", "the engine does not have this endpoint")
    if status == 429:
        return _retryable("UPSTREAM_RATE_LIMITED", "the engine limits its rate", wait, Code.RESOURCE_EXHAUSTED)
    if (400 <= status < 500 and status != 408) or status == 501:
        # vLLM's validation says where in the body, as in body.stop or body.prompt.0.
        field = _FIELDS.get(str(details.get("param")).removeprefix("body.").partition(".")[0]) or _named(details)
        if field is None and _GRAMMAR.search(text):
            field = "constraint"
        known = (Violation(field=field, description="refused by the engine"),) if field else ()
        return EngineError(Code.INVALID_ARGUMENT, "ENGINE_REFUSED", "the engine refused the request", violations=known)
    if status == 503:
        return overloaded(wait)
    return _retryable("ENGINE_FAILED", "the engine failed to answer", wait)


def in_stream(error: Any) -> EngineError:
    """Turns the `error` object of an event inside a 200 stream into an error."""
    details = error if isinstance(error, dict) else {"message": str(error)}
    return refusal(_status(details), msgspec.json.encode({"error": details}))


def garbled() -> EngineError:
    """Says that an engine sent what is not its protocol."""
    return _retryable("UPSTREAM_PROTOCOL", "the engine sent what is not its protocol")


def cut() -> EngineError:
    """Says that an engine's stream ended without its terminator."""
    return _retryable("ENGINE_LOST", "the engine's stream ended in the middle")


def aborted() -> EngineError:
    """Says that an engine gave a choice up, for a reason that is none of a model's."""
    return _retryable("ENGINE_ABORTED", "the engine gave the request up")


def overloaded(wait: float = RETRY_AFTER_DEFAULT) -> EngineError:
    """Says that an engine takes no more requests for now; `wait` is its Retry-After."""
    return _retryable("ENGINE_OVERLOADED", "the engine takes no more requests for now", wait)


def unreachable() -> EngineError:
    """Says that no connection to an engine could be made."""
    return _retryable("ENGINE_UNREACHABLE", "the engine cannot be reached")


def exhausted() -> EngineError:
    """Says that there are no file descriptors left here for a connection to an engine: no fault of the engine's."""
    return _retryable(GATEWAY_EXHAUSTED, "the gateway has no room for more connections", code=Code.RESOURCE_EXHAUSTED)


def silent() -> EngineError:
    """Says that an engine took too long for a plain reply."""
    return _retryable("ENGINE_SILENT", "the engine did not answer in time")


def _retryable(
    reason: str, message: str, wait: float = RETRY_AFTER_DEFAULT, code: Code = Code.UNAVAILABLE
) -> EngineError:
    return EngineError(code, reason, message, retryable=True, retry_after=wait)


def _status(details: dict[str, Any]) -> int:
    code = details.get("code")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    # vLLM's Rust front end puts a word where the others put the status.
    return 400 if _BAD_REQUEST.search(f"{details.get('type')} {code}") else 500


def _details(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except NOT_JSON:
        return {"message": body[:4096].decode("utf-8", "replace")}
    if not isinstance(value, dict):
        return {"message": str(value)}
    inner = value.get("error", value)
    if isinstance(inner, dict):
        return inner if "message" in inner or "type" in inner else {"message": str(inner.get("detail", inner))}
    return {"message": str(inner)}


def _named(details: dict[str, Any]) -> str | None:
    """Returns the field whose parameter the message begins with."""
    match = _NAMED.match(str(details.get("message") or ""))
    return _FIELDS.get(next(group for group in match.groups() if group)) if match else None


def _numbers(details: dict[str, Any], text: str) -> dict[str, str]:
    """Returns the window and what did not fit: llama.cpp has fields for them, the others say them in a sentence."""
    found: dict[str, object] = {"got": details.get("n_prompt_tokens"), "limit": details.get("n_ctx")}
    numbers = {key: str(value) for key, value in found.items() if type(value) is int}
    for key, pattern in (("got", _GOT), ("limit", _LIMIT)):
        match = pattern.search(text)
        if key not in numbers and match:
            numbers[key] = next(group for group in match.groups() if group)
    return numbers
