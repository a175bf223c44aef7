"""What SGLang's native `/generate` streams, as far as we read it. Fields that are not named here are ignored.

The Python front end tells more of an answer than the Rust one: what only one of them sends has a default.
"""

from typing import Annotated, Any

import msgspec

from tokenwire.domain.errors import EngineError
from tokenwire.engines.failure import NOT_JSON, aborted, garbled, in_stream

DONE = b"[DONE]"
# The Rust server's code of a request that somebody has aborted.
_ABORTED = 499

_Count = Annotated[int, msgspec.Meta(ge=0)]
# Log probability (null at the prompt's first token, and for minus infinity), id, and text if it was asked for.
Scored = tuple[float | None, int, str | None]


class Finish(msgspec.Struct, gc=False):
    """Why a choice ended: `matched` is a stop string or a token id; the rest says why it was aborted."""

    type: str
    matched: Any = None
    status_code: int | None = None
    message: str | None = None


class Meta(msgspec.Struct, gc=False):
    """What is told beside the text. `id` is the choice's own where there are several.

    The lists of log probabilities of the answer are, as `output_ids`, of all tokens so far or of the new ones only.
    """

    id: str = ""
    finish_reason: Finish | None = None
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None
    input_token_logprobs: list[Scored] | None = None
    input_top_logprobs: list[list[Scored] | None] | None = None
    input_token_ids_logprobs: list[list[Scored] | None] | None = None
    output_token_logprobs: list[Scored] | None = None
    output_top_logprobs: list[list[Scored] | None] | None = None
    output_token_ids_logprobs: list[list[Scored] | None] | None = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream. An `error`, under a 200, ends it."""

    text: str = ""
    output_ids: list[int] | None = None
    meta_info: Meta | None = None
    index: _Count = 0
    error: Any = None


_decode = msgspec.json.Decoder(Event).decode


def decode_event(payload: bytes) -> tuple[Event, Meta]:
    """Returns the event of a payload and its `meta_info`; raises EngineError if it is none, or tells an error."""
    try:
        event = _decode(payload)
    except NOT_JSON as error:
        raise garbled() from error
    if event.error is not None:
        raise aborted() if _says_aborted(event.error) else in_stream(event.error)
    if event.meta_info is None:
        raise _without_meta(payload)
    return event, event.meta_info


def tells_abort(payload: bytes) -> bool:
    """Whether an event, of either endpoint, says that somebody has aborted the request: not we, as we read on."""
    try:
        return _says_aborted(_decode(payload).error)
    except NOT_JSON:
        return False


def _says_aborted(error: Any) -> bool:
    return isinstance(error, dict) and error.get("code") == _ABORTED


def _without_meta(payload: bytes) -> EngineError:
    # In plain replies an error's fields are at the top; it may be one of those.
    value = msgspec.json.decode(payload)
    return in_stream(value) if value.get("object") == "error" else garbled()
