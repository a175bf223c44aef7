"""HTTP to an engine: one client for the life of the process, raw bytes in, whole events out."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.connections import session
from tokenwire.engines.failure import NOT_JSON, cut, garbled, refusal, retry_after, silent, unreachable
from tokenwire.engines.framing import EventSplitter, LineSplitter

MAX_ERROR_BYTES = 64 * 1024
MAX_REPLY_BYTES = 64 * 1024 * 1024
_LARGE_BYTES = 256 * 1024
# llama.cpp hangs up after a stream without having said so: the next request would be written to a dead connection.
_CLOSE = {"connection": "close"}

# What goes wrong on the wire. httpx-aiohttp maps only some of aiohttp's errors to httpx's; the rest come as they are.
_BROKEN = (httpx.HTTPError, aiohttp.ClientError, OSError)
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx.UnsupportedProtocol)


class Upstream:
    """One engine's HTTP endpoint.

    httpx on the aiohttp transport: httpx's own transport costs 40 us a token more, and its pool is stuck for ever after
    cancels at the wrong moment (encode/httpcore#1093).

    Args:
        url: the base address, without a trailing slash.
        api_key: sent as a bearer token if not empty.
        connect_timeout: seconds to wait for a connection.
        reply_timeout: seconds to wait for a plain (not streamed) reply.
        wall: wall-clock seconds, for Retry-After dates.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str = "",
        connect_timeout: float = 5.0,
        reply_timeout: float = 30.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # Bytes are read raw, so nobody may compress them.
        headers = {"accept-encoding": "identity"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        tls = httpx.create_ssl_context()
        self._reply_timeout = reply_timeout
        self._wall = wall
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            transport=AiohttpTransport(verify=tls, client=lambda: session(tls)),
            # No read timeout: silence is judged by the dispatcher, which knows prefill from decoding. The transport
            # takes `pool` as the limit for all of connecting, the look-up of the name included.
            timeout=httpx.Timeout(None, connect=connect_timeout, pool=connect_timeout),
            follow_redirects=False,
            # Tenants share this client: nothing that an answer sets may come with the next request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    async def get(self, path: str) -> Any:
        """Returns the JSON reply of a GET."""
        return await self._reply("GET", path, None, self._reply_timeout)

    async def text(self, path: str) -> str:
        """Returns the text reply of a GET."""
        return (await self._content("GET", path, None, self._reply_timeout)).decode("utf-8", "replace")

    async def post(self, path: str, body: dict[str, Any], *, patient: bool = False) -> Any:
        """Returns the JSON reply of a POST; `patient` waits without a limit, for a whole answer of a model."""
        return await self._reply("POST", path, body, None if patient else self._reply_timeout)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[list[bytes], None]:
        """Posts and yields the data payloads of the reply's server-sent events, those of one read at a time.

        Ends when the engine closes the stream, wherever that is: the caller knows the terminator. Closing the generator
        closes the connection, which is how engines learn that nobody listens.
        """
        async with aclosing(self._stream(path, body, EventSplitter(), "text/event-stream")) as reads:
            async for payloads in reads:
                yield payloads

    async def lines(self, path: str, body: dict[str, Any]) -> AsyncGenerator[list[bytes], None]:
        """As `events`, for a reply of one JSON value a line."""
        async with aclosing(self._stream(path, body, LineSplitter(), "application/x-ndjson")) as reads:
            async for payloads in reads:
                yield payloads

    async def _stream(
        self, path: str, body: dict[str, Any], splitter: EventSplitter | LineSplitter, media_type: str
    ) -> AsyncGenerator[list[bytes], None]:
        answered = False
        try:
            async with self._client.stream("POST", path, **_content(body, _CLOSE)) as reply:
                answered = True
                await self._accept(reply)
                if not _is_stream(reply, media_type):
                    raise EngineError(
                        Code.UNAVAILABLE, "UPSTREAM_PROTOCOL", "the engine did not answer with a stream", retryable=True
                    )
                async with aclosing(_generator(reply.aiter_raw())) as chunks:
                    async for chunk in chunks:
                        payloads = splitter.feed(chunk)
                        if payloads:
                            yield payloads
        except _BROKEN as error:
            raise _lost(error, answered) from error
        if splitter.unfinished:
            raise cut()

    async def _reply(self, method: str, path: str, body: dict[str, Any] | None, limit: float | None) -> Any:
        received = await self._content(method, path, body, limit)
        try:
            return msgspec.json.decode(received) if received else None
        except NOT_JSON as error:
            raise EngineError(
                Code.UNAVAILABLE, "UPSTREAM_PROTOCOL", "the engine did not answer with JSON", retryable=True
            ) from error

    async def _content(self, method: str, path: str, body: dict[str, Any] | None, limit: float | None) -> bytes:
        answered = False
        content = {} if body is None else _content(body, {})
        try:
            # One limit for the whole: a limit for each read would let a trickle of bytes hold the caller for ever.
            async with (
                asyncio.timeout(limit),
                self._client.stream(method, path, **content) as reply,
            ):
                answered = True
                await self._accept(reply)
                return await _read(reply, MAX_REPLY_BYTES)
        except TimeoutError as error:
            raise silent() from error
        except _BROKEN as error:
            raise _lost(error, answered) from error

    async def _accept(self, reply: httpx.Response) -> None:
        if reply.status_code != 200:
            wait = retry_after(reply.headers.get("retry-after"), self._wall())
            raise refusal(reply.status_code, await _read(reply, MAX_ERROR_BYTES), wait=wait)


def _content(body: dict[str, Any], extra: Mapping[str, str]) -> dict[str, Any]:
    encoded = msgspec.json.encode(body)
    headers = {"content-type": "application/json", **extra}
    if len(encoded) <= _LARGE_BYTES:
        return {"content": encoded, "headers": headers}
    # aiohttp warns of large bodies in one piece. With their length they are not sent in chunks.
    return {"content": _slices(encoded), "headers": headers | {"content-length": str(len(encoded))}}


async def _slices(content: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), _LARGE_BYTES):
        yield content[start : start + _LARGE_BYTES]


def _is_stream(reply: httpx.Response, media_type: str) -> bool:
    kind: str = reply.headers.get("content-type", "")
    encoding: str = reply.headers.get("content-encoding", "identity")
    return kind.lower().startswith(media_type) and encoding.lower() == "identity"


def _lost(error: Exception, answered: bool) -> EngineError:
    # The transport calls a server that hangs up a connect timeout, so look at what lies below.
    cause = (error.__cause__ if isinstance(error, httpx.HTTPError) else None) or error
    if isinstance(cause, aiohttp.ClientResponseError):
        return garbled()
    if not answered and isinstance(cause, _NO_CONNECTION):
        return unreachable()
    return cut()


def _generator(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    # httpx declares less than it returns, and what it returns must be closed.
    assert isinstance(chunks, AsyncGenerator)
    return chunks


async def _read(reply: httpx.Response, limit: int) -> bytes:
    content = bytearray()
    async with aclosing(_generator(reply.aiter_bytes())) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > limit:
                break
    return bytes(content[:limit])
