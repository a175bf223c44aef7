"""What SGLang's small endpoints reply, as far as we read it."""

from typing import Any, TypeVar

import msgspec

from tokenwire.engines.failure import garbled

# Of `/generate`, where neither the request nor the server's operator sets one.
DEFAULT_MAX_TOKENS = 128

_T = TypeVar("_T")


class Model(msgspec.Struct):
    """A model of /v1/models; an adapter of one has a `parent`."""

    id: str
    max_model_len: int | None = None
    parent: str | None = None


class Models(msgspec.Struct):
    """The reply of /v1/models."""

    data: list[Model]


class RankLoad(msgspec.Struct):
    """How busy one replica in the server is."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0


class Loads(msgspec.Struct):
    """The reply of /v1/loads."""

    loads: list[RankLoad]


class Info(msgspec.Struct):
    """The replies of /server_info and /model_info: how the server was started, and what follows from it."""

    frontend: str | None = None
    incremental_streaming_output: bool = False
    max_req_input_len: int | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    enable_deterministic_inference: bool | None = None
    enable_priority_scheduling: bool | None = None
    schedule_low_priority_values_first: bool = False
    preferred_sampling_params: Any = None

    @property
    def priorities(self) -> int | None:
        """As `Server.priorities`."""
        if self.enable_priority_scheduling is None:
            return None
        if not self.enable_priority_scheduling:
            return 0
        return -1 if self.schedule_low_priority_values_first else 1

    @property
    def default_max_tokens(self) -> int:
        """As `Server.default_max_tokens`."""
        preferred = self.preferred_sampling_params
        if isinstance(preferred, str):
            try:
                preferred = msgspec.json.decode(preferred)
            except msgspec.DecodeError:
                return DEFAULT_MAX_TOKENS
        limit = preferred.get("max_new_tokens") if isinstance(preferred, dict) else None
        return limit if isinstance(limit, int) and limit > 0 else DEFAULT_MAX_TOKENS


class Tokens(msgspec.Struct):
    """The reply of /v1/tokenize to one text or chat."""

    tokens: list[int]


class Text(msgspec.Struct):
    """The reply of /v1/detokenize to one list of ids."""

    text: str


class Texts(msgspec.Struct):
    """The reply of /v1/detokenize to several."""

    text: list[str]


def convert(value: Any, kind: type[_T]) -> _T:
    """Returns a reply as what it should be. Raises EngineError if it is not."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise garbled() from error
