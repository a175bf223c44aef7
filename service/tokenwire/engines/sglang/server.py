"""What is known of one SGLang server: how it was started, and what it can do."""

from dataclasses import dataclass
from typing import Any

from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.sglang.choice import REPLACEMENT
from tokenwire.engines.sglang.replies import DEFAULT_MAX_TOKENS, Info, Tokens, convert
from tokenwire.engines.upstream import Upstream

# No vocabulary has as many.
_VOCABULARY_MAX = 1 << 23


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of a server; the defaults are those of one that tells nothing.

    Attributes:
        rust: whether its HTTP server is the one in Rust, which has much, but not all, of what the one in Python has.
        incremental: whether events of `/generate` tell only what is new.
        tokenizes: whether it has the endpoints of its tokenizer.
        chats_plainly: whether a chat is what its template makes of it. Else the chat endpoint adds stop strings.
        max_prompt: a prompt must have fewer tokens than this.
        vocabulary: how many tokens there are.
        unknown_character: the ids of U+FFFD as a character that the model means.
        tool_parser: whether it tells tool calls from text.
        reasoning_parser: whether it tells reasoning from text.
        seeds: whether a seed has an effect; None if not known.
        priorities: 1 if larger numbers go first, -1 if smaller ones, 0 if none has an effect; None if not known.
        default_max_tokens: what `/generate` takes where a request sets no limit.
    """

    rust: bool = False
    incremental: bool = False
    tokenizes: bool = False
    chats_plainly: bool = True
    max_prompt: int | None = None
    vocabulary: int | None = None
    unknown_character: tuple[int, ...] = ()
    tool_parser: bool = False
    reasoning_parser: bool = False
    seeds: bool | None = None
    priorities: int | None = None
    default_max_tokens: int = DEFAULT_MAX_TOKENS


async def ask_server(upstream: Upstream) -> Server:
    """Asks a server what it is. Endpoints that it does not have leave the defaults. Raises EngineError."""
    found: dict[str, Any] = {}
    for path in ("/server_info", "/model_info"):
        told = await ask_if_there(upstream, path)
        found.update(told if isinstance(told, dict) else {})
    info = convert(found, Info)
    sign = await ask_if_there(upstream, "/v1/tokenize", {"prompt": REPLACEMENT, "add_special_tokens": False})
    tokenizes = sign is not None
    return Server(
        rust=info.frontend == "rust" if info.frontend else not await _pings(upstream),
        incremental=info.incremental_streaming_output,
        tokenizes=tokenizes,
        chats_plainly=tokenizes and await _chats_plainly(upstream),
        max_prompt=info.max_req_input_len,
        vocabulary=await _vocabulary(upstream) if tokenizes else None,
        unknown_character=tuple(convert(sign, Tokens).tokens) if tokenizes else (),
        tool_parser=bool(info.tool_call_parser),
        reasoning_parser=bool(info.reasoning_parser),
        seeds=info.enable_deterministic_inference,
        priorities=info.priorities,
        default_max_tokens=info.default_max_tokens,
    )


async def ask_if_there(upstream: Upstream, path: str, body: dict[str, Any] | None = None) -> Any:
    """Returns a JSON reply, or None if the server does not have the endpoint. Raises EngineError."""
    try:
        return await (upstream.get(path) if body is None else upstream.post(path, body))
    except EngineError as error:
        if is_missing(error):
            return None
        raise


def is_missing(error: EngineError) -> bool:
    """Whether the server does not have the endpoint that was asked."""
    return error.reason == "UPSTREAM_PROTOCOL" and not error.retryable


async def _pings(upstream: Upstream) -> bool:
    # Only servers that do not say what they are written in are asked: the one in Python always had this endpoint.
    try:
        await upstream.text("/ping")
    except EngineError as error:
        if is_missing(error):
            return False
        raise
    return True


async def _chats_plainly(upstream: Upstream) -> bool:
    # Templates that are not Jinja's may come with stop strings; with them SGLang refuses this parameter.
    body = {"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": True}
    return not await _refused(upstream, "/v1/tokenize", body)


async def _vocabulary(upstream: Upstream) -> int | None:
    """Finds the number of tokens by means of the detokenizer, as no endpoint tells it.

    Nothing is generated: a server may die of an id that the model does not have.
    """
    known, unknown = -1, _VOCABULARY_MAX
    while unknown - known > 1:
        token_id = (known + unknown) // 2
        # Twice: a token that is a space alone has no text at the beginning.
        body = {"tokens": [token_id, token_id], "skip_special_tokens": False}
        if await _refused(upstream, "/v1/detokenize", body, empty=True):
            unknown = token_id
        else:
            known = token_id
    return unknown or None


async def _refused(upstream: Upstream, path: str, body: dict[str, Any], *, empty: bool = False) -> bool:
    """Whether a small request is refused, or answered with an empty `text` where that counts as well."""
    try:
        reply = await upstream.post(path, body)
    except EngineError as error:
        # Some tokenizers fail over what others refuse.
        if error.code is Code.INVALID_ARGUMENT or error.reason == "ENGINE_FAILED" or is_missing(error):
            return True
        raise
    return empty and not (isinstance(reply, dict) and reply.get("text"))
