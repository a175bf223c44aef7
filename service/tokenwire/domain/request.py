"""What a client asks for. None, or an empty tuple, means that a field was not set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import IntEnum, StrEnum
from sys import intern

from tokenwire.domain.cursor import ChannelKind, Cursor
from tokenwire.domain.set_fields import set_fields


class SamplingPreset(IntEnum):
    """A named set of sampling values; numbers as in sampling.proto."""

    DETERMINISTIC = 1
    BALANCED = 2
    CREATIVE = 3
    PRECISE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSearch:
    """Beam search instead of sampling."""

    width: int
    length_penalty: float | None = None
    early_stopping: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; `logit_bias` holds pairs of token id and bias."""

    preset: SamplingPreset | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    n: int | None = None
    beam_search: BeamSearch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When a choice stops."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What the answer must look like; exactly one field is set."""

    json_schema: str | None = None
    regex: str | None = None
    grammar: str | None = None
    choice: tuple[str, ...] = ()
    json_object: bool | None = None
    structural_tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprobs:
    """Which log probabilities to tell."""

    top_n: int | None = None
    token_ids: tuple[int, ...] = ()
    all: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a run tells beside its text."""

    logprobs: Logprobs | None = None
    prompt_logprobs: Logprobs | None = None
    token_ids: bool | None = None
    echo: bool | None = None
    full_text: bool | None = None


class BufferingMode(IntEnum):
    """Where text is cut into pieces; numbers as in delivery.proto."""

    NONE = 1
    CHARACTER = 2
    WORD = 3
    SENTENCE = 4
    LINE = 5
    PARAGRAPH = 6
    TOKENS = 7
    TIME = 8
    SIZE = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffering:
    """How one kind of channel is cut."""

    mode: BufferingMode = BufferingMode.NONE
    size: int | None = None
    max_hold_ms: int | None = None


UNBUFFERED = Buffering()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a reader wants its stream: the buffering by channel kind. A property of the view, never of the run.

    `unknown` names fields that were set and that this version does not have.
    """

    buffering: Mapping[ChannelKind, Buffering] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Time limits of a run, in seconds."""

    max_duration: float | None = None
    first_token_timeout: float | None = None
    stall_timeout: float | None = None
    allow_partial: bool | None = None


class FailoverPolicy(IntEnum):
    """What happens to a run whose engine fails; numbers as in run.proto."""

    NONE = 1
    BEFORE_FIRST_TOKEN = 2
    CONTINUE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The life of a run; `orphan_grace` in seconds."""

    request_id: str = ""
    orphan_grace: float | None = None
    detached: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    failover: FailoverPolicy | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KvOptions:
    """How a run uses the engine's KV cache."""

    lease: str | None = None
    cache_salt: str | None = None
    bypass: bool | None = None


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call as a whole; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the model may call."""

    name: str
    description: str = ""
    parameters_schema: str = ""
    strict: bool | None = None


class ToolMode(IntEnum):
    """Whether the model calls tools; numbers as in message.proto."""

    AUTO = 1
    NONE = 2
    REQUIRED = 3


class ReasoningEffort(IntEnum):
    """How much a model reasons; numbers as in message.proto."""

    NONE = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request for a run: exactly one of prompt, prompt_ids and messages is set.

    `system` of a Generate is already the first of `messages` here; `fingerprint` is equal for requests that differ in
    delivery alone, and empty for those without a request id.
    """

    model: str = ""
    prompt: str | None = None
    prompt_ids: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolMode | str | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningEffort | None = None
    sampling: Sampling = Sampling()
    stopping: Stopping = Stopping()
    constraint: Constraint | None = None
    output: Output = Output()
    limits: Limits = Limits()
    run: RunOptions = RunOptions()
    kv: KvOptions = KvOptions()
    after: Cursor | None = None
    fingerprint: bytes = b""

    @property
    def n(self) -> int:
        """How many choices are asked for."""
        return self.sampling.n or 1


# Fields that tokenwire serves itself, whatever the engine.
_OWN = frozenset({"model", "after", "fingerprint", "limits", "run", "output.token_ids", "output.full_text"})
# Values that ask for nothing: what an engine does that does not have the field.
_NEUTRAL: Mapping[str, object] = {
    "tools.strict": False,
    "sampling.top_k": 0,
    "sampling.min_p": 0.0,
    "sampling.repetition_penalty": 1.0,
    "sampling.presence_penalty": 0.0,
    "sampling.frequency_penalty": 0.0,
    "sampling.n": 1,
    "sampling.beam_search.early_stopping": False,
    "stopping.min_tokens": 0,
    "stopping.ignore_eos": False,
    "stopping.skip_special_tokens": True,
    "stopping.include_stop": False,
    "output.logprobs.all": False,
    "output.prompt_logprobs.all": False,
    "output.echo": False,
    "run.priority": 0,
    "kv.bypass": False,
}


def engine_fields(submission: Submission) -> Iterator[str]:
    """Yields the path of every field that an engine must support for this request, as engines/support.py names them.

    Such as `sampling.top_k`; with its value where only that one is meant: `tool_choice.mode=REQUIRED`. A value that
    asks for nothing is left out. A path may come more than once.
    """
    yield from _paths(submission, "")
    if submission.run.priority:
        yield "run.priority"
    if isinstance(submission.tool_choice, ToolMode):
        yield f"tool_choice.mode={submission.tool_choice.name}"
    elif submission.tool_choice is not None:
        yield "tool_choice.name"
    if submission.reasoning is not None:
        yield f"reasoning.effort={submission.reasoning.name}"


def _paths(value: object, prefix: str) -> Iterator[str]:
    for name, inner in set_fields(value):
        # Runs keep it, and there are few.
        path = intern(f"{prefix}{name}")
        if path in _OWN or path in ("tool_choice", "reasoning") or inner is None or inner in ((), ""):
            continue
        if isinstance(inner, Role):
            yield f"{path}={inner.name}"
        elif is_dataclass(inner):
            yield from _paths(inner, f"{path}.")
        elif path in ("messages", "tools"):
            for one in inner:
                yield from _paths(one, f"{path}.")
        elif path not in _NEUTRAL or inner != _NEUTRAL[path]:
            yield path
