"""What Ollama sends, as far as we read it. Fields that are not named here are ignored."""

from typing import Annotated, Any

import msgspec

# gc=False: these hold no cycles, and one comes with every token.
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Function(msgspec.Struct, gc=False):
    """The tool that shall be called; `arguments` is a JSON object."""

    name: str
    arguments: dict[str, Any] | None = None


class Call(msgspec.Struct, gc=False):
    """A tool call, always whole. Old versions have no ids."""

    function: Function
    id: str | None = None


class Message(msgspec.Struct, gc=False):
    """What a line of a chat adds."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None


class Candidate(msgspec.Struct, gc=False):
    """A token that might have been chosen."""

    token: str
    logprob: float


class Chosen(msgspec.Struct, gc=False):
    """A token of the answer, and the most probable ones at its place."""

    token: str
    logprob: float
    top_logprobs: list[Candidate] | None = None


class Line(msgspec.Struct, gc=False):
    """One line of a stream: `message` of a chat, `response` and `thinking` of a completion.

    The one that is `done` is the last, and has the counts; those that are zero are missing. An `error`, under a 200,
    ends the stream.
    """

    done: bool | None = None
    done_reason: str | None = None
    message: Message | None = None
    response: str | None = None
    thinking: str | None = None
    logprobs: list[Chosen] | None = None
    prompt_eval_count: _Count | None = None
    eval_count: _Count | None = None
    error: Any = None


class Version(msgspec.Struct):
    """The reply of /api/version."""

    version: str


class Listed(msgspec.Struct):
    """A model of /api/tags: its full name, and what changes with its content."""

    name: str
    digest: str = ""


class Tags(msgspec.Struct):
    """The reply of /api/tags."""

    models: list[Listed] | None = None


class Loaded(msgspec.Struct):
    """A model of /api/ps; `context_length` is the window that it was loaded with."""

    name: str
    context_length: int = 0


class Running(msgspec.Struct):
    """The reply of /api/ps."""

    models: list[Loaded] | None = None


class Details(msgspec.Struct):
    """What kind of model it is."""

    family: str = ""


class Shown(msgspec.Struct):
    """The reply of /api/show. `parameters` is text, one of the model's own settings a line: a name and a value."""

    parameters: str = ""
    details: Details | None = None
    model_info: dict[str, Any] | None = None
    capabilities: list[str] | None = None
    remote_host: str = ""
