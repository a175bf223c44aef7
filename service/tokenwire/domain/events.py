"""The events of a run, as the journal keeps them and as a view sends them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from tokenwire.domain.cursor import Channel, Cursor
from tokenwire.domain.errors import Code, Violation


class FinishReason(IntEnum):
    """Why a choice ended; numbers as in finish.proto."""

    UNSPECIFIED = 0
    STOP = 1
    LENGTH = 2
    CONTEXT_LENGTH = 3
    STOP_SEQUENCE = 4
    TOOL_CALLS = 5
    CONTENT_FILTER = 6
    CANCELLED = 7
    TIME_LIMIT = 8
    TENANT_BUDGET = 9
    ERROR = 10


class Continuation(IntEnum):
    """How an attempt goes on from what the journal holds; numbers as in event.proto."""

    FIRST = 1
    BY_TOKENS = 2
    BY_TEXT = 3


class Phase(IntEnum):
    """What a run is doing; numbers as in event.proto."""

    LOADING = 1
    QUEUED = 2
    PREFILL = 3
    DECODE = 4


class DetachReason(IntEnum):
    """Why a view stopped while its run lives; numbers as in event.proto."""

    DRAINING = 1
    SLOW_CONSUMER = 2
    MOVED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability.

    `token_id` is None if the engine does not tell it, `logprob` for the prompt's first token. `top` holds the most
    probable tokens, best first; `given` those that were asked for by id, in the order of the request.
    """

    token_id: int | None
    token: str
    logprob: float | None
    top: tuple["TokenLogprob", ...] = ()
    given: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of a run."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds since `start`, and what follows from them."""

    queued_ms: int = 0
    scheduled_ms: int = 0
    first_token_ms: int = 0
    completed_ms: int = 0
    time_to_first_token_ms: int = 0
    mean_time_between_tokens_ms: float = 0.0
    p99_time_between_tokens_ms: float = 0.0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run failed; fields as those of TokenwireError."""

    code: Code
    reason: str
    message: str
    retryable: bool = False
    retry_after: float | None = None
    violations: tuple[Violation, ...] = ()
    resource: tuple[str, str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The run was accepted."""

    run_id: str
    request_id: str
    model: str
    labels: Mapping[str, str]
    retention_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """An engine was chosen."""

    engine: str
    attempt: int
    continuation: Continuation


class Delta(NamedTuple):
    """Text of one channel: one journal event, a part of one, or several merged."""

    # A tuple, as Envelope and Cursor are: one comes with each message, and a frozen dataclass costs thrice as much.

    channel: Channel
    text: str
    byte_offset: int
    token_offset: int
    token_count: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallHead:
    """A tool call begins."""

    channel: Channel
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageUpdate:
    """Prompt tokens, known after the prefill."""

    attempt: int
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokens:
    """Log probabilities of the prompt's tokens from one place on; a long prompt has several of these."""

    token_offset: int
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailingTokens:
    """Tokens of one channel without text that came after its last text; no ids if the engine does not tell all."""

    channel: Channel
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceEnd:
    """How one choice ended. `matched_stop` is the stop string or the stop token's id."""

    choice: int
    finish_reason: FinishReason
    matched_stop: str | int | None = None
    trailing: tuple[TrailingTokens, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEnd:
    """A whole channel, to verify what was read."""

    channel: Channel
    bytes: int
    tokens: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The run ended; nothing follows. `texts` is filled by a view that was asked for the full text."""

    choices: tuple[ChoiceEnd, ...]
    usage: Usage
    timings: Timings
    channels: tuple[ChannelEnd, ...]
    error: RunError | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the run is; never journalled."""

    phase: Phase
    queue_place: int = 0
    prefill_total: int = 0
    prefill_cached: int = 0
    prefill_done: int = 0
    tokens: int = 0
    characters: int = 0
    estimated_tokens: int = 0
    percent: float = 0.0
    eta_ms: int = 0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent in silence; never journalled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """The view stops, the run lives; never journalled."""

    reason: DetachReason
    resume_within_ms: int
    retry_after_ms: int


# What the journal holds beside text, which it keeps by channel.
Marker = Start | Dispatched | ToolCallHead | UsageUpdate | PromptTokens | End
Event = Marker | Delta | Progress | Heartbeat | Detached


class Envelope(NamedTuple):
    """One message of a stream: the event, what the reader has consumed with it, and when it was written."""

    event: Event
    cursor: Cursor
    elapsed_ms: int
