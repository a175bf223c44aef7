"""An engine as a process of its own, in vLLM's dialect: every token follows from all the ids before it.

So whoever continues an answer, from whatever place, has to come to the very text that an unbroken run has: what a test
can hold every byte to. A token is a byte, or one of a few words; characters of several bytes come in several tokens.

    python engine.py --port 8000 --milliseconds 5
"""

import argparse
import asyncio
import json
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

from aiohttp import web

MODEL = "stand-in"
WINDOW = 16_384
WORDS = (" the", " river", " keeps", " its", " own", " slow", " time", ",", " and", " carries", " stones", ".", "\n")
CHARACTERS = ("é", "水", "ß", "🌊", "ā")
_TEXTS = [bytes([one]) for one in range(256)] + [word.encode() for word in WORDS]


def next_id(ids: Sequence[int]) -> int:
    """Returns the token that follows."""
    for length in (3, 2, 1):
        begun = bytes(one for one in ids[-length:] if one < 256)
        if len(begun) == length <= len(ids) and begun[0] >= 0xC0:
            # In the middle of a character: it was chosen by what came before it.
            whole = _character(ids[:-length])
            if whole.startswith(begun) and len(whole) > length:
                return whole[length]
    chosen = _digest(ids)
    return _character(ids)[0] if chosen % 6 == 0 else 256 + chosen // 6 % len(WORDS)


def tokenize(text: str) -> list[int]:
    """Returns the ids of a text: words where they fit, else bytes."""
    data, ids = text.encode(), []
    words = sorted(range(256, len(_TEXTS)), key=lambda one: -len(_TEXTS[one]))
    while data:
        one = next((word for word in words if data.startswith(_TEXTS[word])), data[0])
        ids.append(one)
        data = data[len(_TEXTS[one]) :]
    return ids


def detokenize(ids: Sequence[int]) -> str:
    """Returns the text of tokens; what is no whole character is U+FFFD."""
    return b"".join(_TEXTS[one] for one in ids).decode("utf-8", "replace")


def first_id(ids: Sequence[int], choice: int) -> int:
    """Returns the first token of a choice; each has another one, from which the rest follows."""
    if not choice:
        return next_id(ids)
    return 256 + (next_id(ids) + choice) % len(WORDS)


def expected(prompt: str, tokens: int, choice: int = 0) -> str:
    """Returns the whole text of an unbroken answer."""
    ids = tokenize(prompt)
    start = len(ids)
    for number in range(tokens):
        ids.append(next_id(ids) if number else first_id(ids, choice))
    return b"".join(_TEXTS[one] for one in ids[start:]).decode("utf-8", "ignore")


def _character(ids: Sequence[int]) -> bytes:
    return CHARACTERS[_digest(ids) // 7 % len(CHARACTERS)].encode()


def _digest(ids: Sequence[int]) -> int:
    # The latest few are enough to make every place different, and quick.
    return zlib.crc32(array("I", ids[-24:]).tobytes() + len(ids).to_bytes(4, "little"))


class Choice:
    """One choice as it is written: what can be told of it, text that may be a stop string held back.

    Attributes:
        ids: of prompt and answer.
        reason: why it has ended: "length", "stop", or None.
        matched: the stop string, if that is why.
    """

    def __init__(self, ids: Sequence[int], index: int, wanted: int, stops: Sequence[str], *, told: bool) -> None:
        self.ids = list(ids)
        self.reason: str | None = None
        self.matched: str | None = None
        self._start = len(ids)
        self._index = index
        self._wanted = wanted
        self._stops = stops
        self._told = told
        self._sent = 0

    def step(self) -> str:
        """Writes a token; returns the text that can be told with it."""
        self.ids.append(next_id(self.ids) if len(self.ids) > self._start else first_id(self.ids, self._index))
        text = b"".join(_TEXTS[one] for one in self.ids[self._start :]).decode("utf-8", "ignore")
        found = min(((text.find(stop) + len(stop), stop) for stop in self._stops if stop in text), default=None)
        if found is not None:
            end, self.matched = found
            self.reason = "stop"
            text = text[: end if self._told else end - len(self.matched)]
        elif len(self.ids) - self._start == self._wanted:
            self.reason = "length"
        else:
            # As vLLM does.
            text = text[: max(self._sent, len(text) - max((len(stop) - 1 for stop in self._stops), default=0))]
        new, self._sent = text[self._sent :], len(text)
        return new


class Engine:
    """Answers completions; counts what it is doing.

    Args:
        milliseconds: between two tokens.
        hold: how many tokens an answer writes until it waits to be let go on; None: it does not wait.
    """

    def __init__(self, milliseconds: float, hold: int | None = None) -> None:
        self._pause = milliseconds / 1000
        self._hold = hold
        self._running = 0
        self._started = 0
        self._released = asyncio.Event()

    def app(self) -> web.Application:
        """Returns the server."""
        app = web.Application(client_max_size=2**26)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/models", self._models),
                web.get("/counts", self._counts),
                web.post("/release", self._release),
                web.post("/tokenize", self._tokenize),
                web.post("/detokenize", self._detokenize),
                web.post("/abort_requests", self._health),
                web.post("/v1/completions", self._complete),
            ]
        )
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": WINDOW}
        return web.json_response({"object": "list", "data": [model]})

    async def _counts(self, _: web.Request) -> web.Response:
        return web.json_response({"running": self._running, "started": self._started})

    async def _release(self, _: web.Request) -> web.Response:
        self._released.set()
        return web.json_response({})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = body.get("prompt")
        if text is None:
            text = "".join(f"{one['role']}: {one['content']}\n" for one in body["messages"]) + "assistant:"
        ids = tokenize(text)
        return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": WINDOW})

    async def _detokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"prompt": detokenize((await request.json())["tokens"])})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body["prompt"]
        ids = tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._running += 1
        self._started += 1
        try:
            await response.prepare(request)
            await self._write(response, ids, body)
        finally:
            self._running -= 1
        return response

    async def _write(self, response: web.StreamResponse, ids: list[int], body: dict[str, Any]) -> None:
        stops = body.get("stop") or ()
        stops = (stops,) if isinstance(stops, str) else stops
        wanted, told = body.get("max_tokens") or 16, bool(body.get("include_stop_str_in_output"))
        choices = [Choice(ids, index, wanted, stops, told=told) for index in range(body.get("n") or 1)]
        number = written = 0
        while any(choice.reason is None for choice in choices):
            if number == self._hold:
                await self._released.wait()
            await asyncio.sleep(self._pause)
            for index, choice in enumerate(choices):
                if choice.reason is not None:
                    continue
                text = choice.step()
                written += 1
                said = {
                    "index": index,
                    "text": text,
                    "logprobs": None,
                    "finish_reason": choice.reason,
                    "stop_reason": choice.matched,
                    "prompt_token_ids": ids if number == 0 else None,
                    "token_ids": choice.ids[-1:],
                }
                await _send(response, {"id": "x", "object": "text_completion", "model": MODEL, "choices": [said]})
            number += 1
        usage = {"prompt_tokens": len(ids), "completion_tokens": written}
        await _send(response, {"id": "x", "object": "text_completion", "model": MODEL, "choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")


async def _send(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--milliseconds", type=float, default=5.0, help="between two tokens")
    parser.add_argument("--hold", type=int, default=None, help="each answer waits after so many tokens for /release")
    asked = parser.parse_args(arguments)
    engine = Engine(asked.milliseconds, asked.hold)
    # Whoever has left is written to no more.
    runner = web.AppRunner(engine.app(), handler_cancellation=True, access_log=None)
    asyncio.run(_serve(runner, asked.port))


async def _serve(runner: web.AppRunner, port: int) -> None:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
