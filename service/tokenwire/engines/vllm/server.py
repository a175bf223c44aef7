"""What is known of one vLLM server: which of the two front ends it has, and what that one cannot do."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.failure import garbled
from tokenwire.engines.openai.request import CHAT_PATH
from tokenwire.engines.openai.wire import Delta, Model
from tokenwire.engines.support import Cell, Support
from tokenwire.engines.upstream import Upstream

# How the Rust front end signs its models.
RUST_OWNER = "vllm-frontend-rs"
_RUST_LACKS = frozenset(
    {
        "sampling.beam_search.width",
        "sampling.beam_search.length_penalty",
        # It renders messages without them.
        "messages.name",
    }
)
# A row all the same: a beam search that asks for several choices is refused for the search.
_ONE_CHOICE = Cell(Support.NATIVE, "1 alone, as this is the Rust front end")
_LACKING_WITHOUT_TAGS = frozenset({"tools.strict", "tool_choice.mode=REQUIRED", "tool_choice.name"})
# A busy server is not waited for; it is asked again.
TRIAL_SECONDS = 5.0
# Enough for a call without arguments, in the words of whatever model.
_TRIAL_TOKENS = 48
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of a server; the defaults are those of the Python front end, and of one that never answered.

    The Rust front end has one choice an answer, no beam search, and no names of messages. It checks no constraint: the
    engine fails over a broken one, or ends the answer before its first character. The engine makes grammars by one
    library for the life of its process, the one that the first request with a grammar names. The Rust front end names
    xgrammar for tools and llguidance for constraints, whatever the settings say; with llguidance, structural tags do
    not work, which are what holds a model to a tool.

    Attributes:
        rust: whether it is the Rust front end.
        tags: whether structural tags work there; None if not known.
        unknown_character: the ids of U+FFFD as a character that the model means; empty if not known.
    """

    rust: bool = False
    tags: bool | None = None
    unknown_character: tuple[int, ...] = ()

    def fields(self, column: Mapping[str, Cell]) -> Mapping[str, Cell]:
        """Returns what this server has of vLLM's column in engines/support.py."""
        if not self.rust:
            return column
        lacking = _RUST_LACKS | _LACKING_WITHOUT_TAGS if self.tags is False else _RUST_LACKS
        return {field: cell for field, cell in column.items() if field not in lacking} | {"sampling.n": _ONE_CHOICE}


async def ask_server(upstream: Upstream, models: Sequence[Model], model: str) -> tuple[Server, bool]:
    """Returns what a server is, and whether that is all that can be known. Raises EngineError.

    A server of the Rust front end is made to call a tool, of a few tokens. Of a fresh one this chooses xgrammar, with
    which everything works; of another it shows what was chosen.

    Args:
        upstream: the server.
        models: those that it lists.
        model: the one to try.
    """
    if not any(one.owned_by == RUST_OWNER for one in models):
        return Server(), True
    server = Server(rust=True, unknown_character=await _unknown_character(upstream, model))
    try:
        async with asyncio.timeout(TRIAL_SECONDS):
            return replace(server, tags=await _calls_tools(upstream, model)), True
    except (TimeoutError, EngineError):
        return server, False


async def _unknown_character(upstream: Upstream, model: str) -> tuple[int, ...]:
    body = {"model": model, "prompt": _REPLACEMENT, "add_special_tokens": False}
    try:
        return tuple(msgspec.convert(await upstream.post("/tokenize", body), _Tokenized).tokens)
    except msgspec.ValidationError:
        return ()
    except EngineError as error:
        if error.reason != "UPSTREAM_PROTOCOL":
            raise
        # It does not have the endpoint.
        return ()


async def _calls_tools(upstream: Upstream, model: str) -> bool | None:
    try:
        reply = await upstream.post(CHAT_PATH, _trial(model))
    except EngineError as error:
        if error.reason == "ENGINE_FAILED":
            return False
        if error.code is Code.INVALID_ARGUMENT:
            # A model without a chat template, or a server without a parser for its calls.
            return None
        raise
    try:
        choices = msgspec.convert(reply, _Reply).choices
    except msgspec.ValidationError as error:
        raise garbled() from error
    return True if any(choice.message.tool_calls for choice in choices) else None


def _trial(model: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Call the tool."}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters, "strict": True}}],
        "tool_choice": "required",
        "max_tokens": _TRIAL_TOKENS,
        "temperature": 0,
    }


class _Choice(msgspec.Struct):
    message: Delta


class _Reply(msgspec.Struct):
    choices: list[_Choice]


class _Tokenized(msgspec.Struct):
    tokens: list[int]
