"""An imitation of Ollama's HTTP API, for tests on machines without one.

Written from Ollama's documentation (docs/api.md, docs/api/*.mdx, docs/openapi.yaml) and from its source of August 2026
where the documentation is silent: `truncate` and `shift` of a chat, the words of refusals, what happens when the window
is full, that a closed connection stops the work. Never compared with a running Ollama: the order of fields, where a
real one cuts text into lines, and all timing are made up. Where Ollama would ignore a field or an option without a
word, this one answers 400, so that nothing an adapter sends can get lost unnoticed.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_BOTH = frozenset({"model", "stream", "think", "truncate", "shift", "format", "options", "logprobs", "top_logprobs"})
_CHAT = _BOTH | {"messages", "tools"}
_GENERATE = _BOTH | {"prompt", "raw"}
_MESSAGE = frozenset({"role", "content", "tool_calls", "tool_name", "tool_call_id"})
_PENALTIES = frozenset({"repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty"})
_OPTIONS = _PENALTIES | {"temperature", "top_p", "top_k", "min_p", "seed", "num_predict", "num_ctx", "stop"}
_THINK = (None, True, False, "low", "medium", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of an answer: thinking, text, a tool call, an error, the connection's break, an early end, or a pause.

    Text is written word by word. An early end is what a real one does to an answer that repeats itself.
    """

    text: str = ""
    thinking: str = ""
    call: tuple[str, dict[str, Any]] | None = None
    error: str = ""
    cut: bool = False
    early_end: bool = False
    pause: bool = False


@dataclass(slots=True, kw_only=True)
class StandInModel:
    """A model; `num_ctx` and `stops` are its own settings, `trained` is the window that it was made for."""

    digest: str
    capabilities: tuple[str, ...] = ("completion", "tools", "thinking")
    num_ctx: int | None = None
    trained: int = 8192
    stops: tuple[str, ...] = ()
    family: str = "llama"
    remote_host: str = ""


@dataclass(slots=True, kw_only=True)
class OllamaStandIn:
    """The imitation.

    Attributes:
        models: by full name.
        answer: what the next requests are answered with.
        constrained: what they are answered with if they have a `format`.
        default_num_ctx: the window of models that have no setting for it.
        bodies: path and body of each request.
        loaded: the window of each loaded model, by full name.
        stopped: set when a client has gone in the middle of an answer.
        resume: ends a pause.
    """

    models: dict[str, StandInModel] = field(default_factory=lambda: {"tiny:latest": StandInModel(digest="d1")})
    answer: Sequence[Part] = (Part(text="Hello there, friend."),)
    constrained: Sequence[Part] = (Part(text='{"ok": true}'),)
    version: str = "0.33.0"
    default_num_ctx: int = 4096
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    loaded: dict[str, int] = field(default_factory=dict)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    resume: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def asked(self, path: str) -> list[dict[str, Any]]:
        """Returns the bodies of the requests to a path."""
        return [body for one, body in self.bodies if one == path]

    async def root(self, request: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def tell_version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def tags(self, request: web.Request) -> web.Response:
        listed = [{"name": name, "model": name, "digest": model.digest} for name, model in self.models.items()]
        return web.json_response({"models": listed})

    async def ps(self, request: web.Request) -> web.Response:
        running = [{"name": name, "model": name, "context_length": window} for name, window in self.loaded.items()]
        return web.json_response({"models": running})

    async def show(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        name = _full(body["model"])
        model = self.models.get(name)
        if model is None:
            return _error(404, f"model '{body['model']}' not found")
        settings = [("stop", stop) for stop in model.stops]
        lines = [f"{name:<30} {json.dumps(value)}" for name, value in settings]
        if model.num_ctx is not None:
            lines.append(f"{'num_ctx':<30} {model.num_ctx}")
        info = {"general.architecture": model.family, f"{model.family}.context_length": model.trained}
        return web.json_response(
            {
                "parameters": "\n".join(lines),
                "remote_host": model.remote_host,
                "details": {"family": model.family},
                "model_info": info,
                "capabilities": list(model.capabilities),
            }
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        messages = body.get("messages", [])
        unknown = set(body) - _CHAT or {key for message in messages for key in set(message) - _MESSAGE}
        words = [word for message in messages for word in _words(message["role"] + " " + message["content"])]
        return await self._write(request, body, unknown, words, "message")

    async def generate(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        words = list(_words(body.get("prompt", "")))
        return await self._write(request, body, set(body) - _GENERATE, words, "response")

    async def _body(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.bodies.append((request.path, body))
        return body

    async def _write(
        self, request: web.Request, body: dict[str, Any], unknown: set[str], words: list[str], place: str
    ) -> web.StreamResponse:
        options = body.get("options", {})
        model = self.models.get(_full(body["model"]))
        if model is None:
            return _error(404, f"model '{body['model']}' not found")
        if unknown or (unknown := set(options) - _OPTIONS) or body.get("think") not in _THINK:
            return _error(400, f"a real one would ignore {sorted(unknown)}")
        if body.get("think") and "thinking" not in model.capabilities:
            return _error(400, f'"{body["model"]}" does not support thinking')
        if body.get("tools") and "tools" not in model.capabilities:
            return _error(400, f"registry.ollama.ai/library/{body['model']} does not support tools")
        if not 0 <= body.get("top_logprobs", 0) <= 20:
            return _error(400, "top_logprobs must be between 0 and 20")
        window = min(options.get("num_ctx") or model.num_ctx or self.default_num_ctx, model.trained)
        self.loaded[_full(body["model"])] = window
        if not words:
            return web.json_response({"model": body["model"], place: "", "done": True, "done_reason": "load"})
        if len(words) >= window:
            if not body.get("truncate", True):
                inner = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": len(words)}
                return _error(400, json.dumps({"error": inner | {"n_ctx": window}}))
            words = words[-window // 2 :]
        parts = self.constrained if "format" in body else self.answer
        if parts and parts[0].error:
            return _error(500, parts[0].error)
        reply = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await reply.prepare(request)
        try:
            await self._stream(request, reply, _Writing(body, place, window, len(words)), parts)
        except (asyncio.CancelledError, ConnectionError):
            self.stopped.set()
            raise
        return reply

    async def _stream(
        self, request: web.Request, reply: web.StreamResponse, writing: "_Writing", parts: Sequence[Part]
    ) -> None:
        for part in parts:
            if part.pause:
                await self.resume.wait()
            elif part.error:
                await reply.write(json.dumps({"error": part.error}).encode() + b"\n")
                return
            elif part.cut:
                assert request.transport is not None
                request.transport.abort()
                return
            elif part.early_end:
                return
            for line in writing.lines(part):
                await reply.write(json.dumps(line).encode() + b"\n")
        await reply.write(json.dumps(writing.last()).encode() + b"\n")


class _Writing:
    """The writing of one answer, word by word, each a token."""

    def __init__(self, body: dict[str, Any], place: str, window: int, read: int) -> None:
        options = body.get("options", {})
        self._body, self._place, self._window, self._read = body, place, window, read
        self._limit: int = options.get("num_predict", 10 * window)
        self._stops: list[str] = options.get("stop", [])
        self._written = 0
        self._text = ""
        self._reason = ""

    def lines(self, part: Part) -> Iterator[dict[str, Any]]:
        """Yields the lines of a part, as far as it is written."""
        if part.call is not None and not self._reason:
            name, arguments = part.call
            yield self._line("", tool_calls=[{"function": {"name": name, "arguments": arguments}}])
        for kind, words in (("thinking", _words(part.thinking)), ("content", _words(part.text))):
            for word in words:
                if self._reason:
                    return
                self._written += 1
                met = next((stop for stop in self._stops if stop in self._text + word), None)
                if met is not None:
                    word = (self._text + word).partition(met)[0][len(self._text) :]
                    self._reason = "stop"
                self._text += word
                if word:
                    yield self._line(word) if kind == "content" else self._line("", thinking=word)
                full = not self._body.get("shift", True) and self._read + self._written >= self._window
                if not self._reason and (self._written >= self._limit or full):
                    self._reason = "length"

    def last(self) -> dict[str, Any]:
        """Returns the last line."""
        counts = {"prompt_eval_count": self._read, "eval_count": self._written}
        times = dict.fromkeys(("total_duration", "load_duration", "eval_duration"), 1000000)
        return self._line("", done=True) | {"done_reason": self._reason or "stop"} | counts | times

    def _line(self, text: str, *, done: bool = False, **more: Any) -> dict[str, Any]:
        line: dict[str, Any] = {"model": self._body["model"], "created_at": "2026-08-21T18:48:22.5Z", "done": done}
        if self._place == "message":
            line["message"] = {"role": "assistant", "content": text} | more
        else:
            line |= {"response": text} | more
        if self._body.get("logprobs") and text:
            top = [{"token": text, "logprob": -0.25}, {"token": "x", "logprob": -2.5}]
            told = {"top_logprobs": top[: self._body["top_logprobs"]]} if self._body.get("top_logprobs") else {}
            line["logprobs"] = [{"token": text, "logprob": -0.25, **told}]
        return line


def _words(text: str) -> Iterator[str]:
    return (found.group() for found in re.finditer(r"\s*\S+|\s+$", text))


def _full(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


@asynccontextmanager
async def ollama_stand_in(**settings: Any) -> AsyncGenerator[OllamaStandIn, None]:
    """Runs a stand-in on a free port of loopback as long as the block."""
    stand_in = OllamaStandIn(**settings)
    app = web.Application()
    app.router.add_get("/", stand_in.root)
    app.router.add_get("/api/version", stand_in.tell_version)
    app.router.add_get("/api/tags", stand_in.tags)
    app.router.add_get("/api/ps", stand_in.ps)
    app.router.add_post("/api/show", stand_in.show)
    app.router.add_post("/api/chat", stand_in.chat)
    app.router.add_post("/api/generate", stand_in.generate)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield stand_in
    finally:
        await runner.cleanup()
