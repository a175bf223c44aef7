"""What an OpenAI-compatible server sends, as far as we read it. Fields that are not named here are ignored."""

from typing import Annotated, Any

import msgspec

# gc=False: these hold no cycles, and one comes with every token.
_Count = Annotated[int, msgspec.Meta(ge=0)]
_TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Function(msgspec.Struct, gc=False):
    """A part of a tool call: the name once, the arguments piece by piece."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, gc=False):
    """A part of one tool call of a choice."""

    index: _Count = 0
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct, gc=False):
    """What a chat chunk adds. vLLM says `reasoning`, SGLang and llama.cpp `reasoning_content`, some say both."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk: `text` of a completion, `delta` of a chat, `message` of a chat that is told as a whole.

    What made it stop is `stop_reason` to vLLM and `matched_stop` to SGLang: a stop string, or ids of tokens. Token ids
    are vLLM's. Log probabilities are read only where they were asked for, as servers send odd things there.
    """

    index: _Count = 0
    text: str | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | list[int] | None = None
    matched_stop: str | int | list[int] | None = None
    token_ids: list[_TokenId] | None = None
    prompt_token_ids: list[_TokenId] | None = None
    logprobs: msgspec.Raw = msgspec.Raw()


class PromptDetails(msgspec.Struct, gc=False):
    """How the prompt's tokens came about."""

    cached_tokens: _Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """What the answer's tokens were."""

    reasoning_tokens: _Count | None = None


class Usage(msgspec.Struct, gc=False):
    """Token counts over all choices. SGLang puts `reasoning_tokens` here, OpenAI and vLLM into the details."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event of a stream, or a whole answer. An `error`, under a 200, ends it."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    prompt_token_ids: list[_TokenId] | None = None
    error: Any = None


class ModelMeta(msgspec.Struct):
    """What llama.cpp tells of a model: the window it runs with, and the one the model was made for."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None


class Model(msgspec.Struct):
    """A model of /v1/models; `max_model_len` is vLLM's and SGLang's. vLLM's front ends name themselves as owners."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: ModelMeta | None = None

    @property
    def context_window(self) -> int | None:
        """The tokens of prompt and answer together, None if not told."""
        meta = self.meta or ModelMeta()
        return self.max_model_len or meta.n_ctx or meta.n_ctx_train or None


class Models(msgspec.Struct):
    """The reply of /v1/models; Ollama says null when it has none."""

    data: list[Model] | None
