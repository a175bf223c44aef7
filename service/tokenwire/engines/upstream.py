"""HTTP to an engine: one client for the life of the process, raw bytes in, whole events out."""

import asyncio
import errno
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
from tokenwire.engines.exchange import Exchange, ReadPayloads, UnheardError
from tokenwire.engines.failure import (
    NOT_JSON,
    cut,
    exhausted,
    garbled,
    refusal,
    retry_after,
    silent,
    unreachable,
)
from tokenwire.engines.framing import EVENTS, Framing
from tokenwire.engines.idle import IdleConnections
from tokenwire.engines.inbox import Inbox
from tokenwire.engines.refused import MAX_ERROR_BYTES

MAX_REPLY_BYTES = 64 * 1024 * 1024
_LARGE_BYTES = 256 * 1024
# Reads that wait for a reader before the engine has to.
_READS_AHEAD = 64
_NONE: Mapping[str, str] = {}

_encode = msgspec.json.Encoder().encode

# This process, or this machine, has no file descriptors left: that says nothing of the engine.
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

# What goes wrong on the wire. httpx-aiohttp maps only some of aiohttp's errors to httpx's; the rest come as they are.
_BROKEN = (httpx.HTTPError, aiohttp.ClientError, OSError)
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx.UnsupportedProtocol)


class Upstream:
    """One engine's HTTP endpoint.

    Streams go over exchange.py, plain replies over httpx on the aiohttp transport: the pool of httpx's own transport is
    stuck for ever after cancels at the wrong moment (encode/httpcore#1093).

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
        self._connect_timeout = connect_timeout
        self._wall = wall
        self._idle = IdleConnections()
        # One for all connections.
        self._ended = self._idle.forget
        parts = httpx.URL(url)
        self._host = parts.host
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = tls if parts.scheme == "https" else None
        self._server_name = parts.host if self._tls is not None else None
        self._post = b"POST " + parts.raw_path.rstrip(b"/")
        told = {"host": parts.netloc.decode("ascii"), "content-type": "application/json"} | headers
        self._head = "".join(f"{name}: {value}\r\n" for name, value in told.items()).encode("latin-1") + b"\r\n"
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
        """Closes every connection, but those of streams that still go on."""
        self._idle.close()
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

    async def tell(
        self,
        path: str,
        body: dict[str, Any],
        read: ReadPayloads,
        headers: Mapping[str, str] = _NONE,
        framing: Framing = EVENTS,
    ) -> None:
        """Posts and calls `read` with the payloads of the reply's stream, those of one read at a time.

        Returns when `read` says that the answer is whole, or when the engine closes the stream, wherever that is: the
        caller knows the terminator. What `read` raises is raised. `headers` go with the request.
        """
        waited = True
        while True:
            exchange = await self._connection(waited=waited)
            try:
                await exchange.ask(self._request(path, body, headers), framing, read)
                if exchange.unfinished:
                    raise cut()
                return
            except UnheardError:
                waited = False
            finally:
                self._idle.keep(exchange)

    async def events(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] = _NONE, framing: Framing = EVENTS
    ) -> AsyncGenerator[list[bytes], None]:
        """As `tell`, for a reader that waits in between: yields the payloads of one read at a time.

        Ends when the engine closes the stream. Closing the generator before that closes the connection, which is how
        engines learn that nobody listens.
        """
        inbox = Inbox()

        def take(payloads: list[bytes]) -> bool:
            if inbox.put(payloads) > _READS_AHEAD:
                exchange.pause()
            return False

        waited = True
        while True:
            exchange = await self._connection(waited=waited)
            try:
                done = exchange.ask(self._request(path, body, headers), framing, take)
                done.add_done_callback(lambda _: inbox.wake())
                while not (done.done() and inbox.empty):
                    for payloads in inbox.take():
                        yield payloads
                    if inbox.empty and not done.done():
                        exchange.resume()
                        await inbox.wait()
                done.result()
                if exchange.unfinished:
                    raise cut()
                return
            except UnheardError:
                waited = False
            finally:
                self._idle.keep(exchange)

    async def _connection(self, *, waited: bool) -> Exchange:
        """Returns a connection for a stream; `waited`: one that has waited for it will do.

        A server may close one that waits just when a request is sent on it. If it ends before a byte of the reply has
        come, the request is sent again, on a new one and so once at most. An engine that had closed it has not read the
        request. One that fails within a second of reading it may have begun; but nobody heard anything of that, it
        stops when the connection is gone, and a request that fails so early is tried again in any case, by the
        dispatcher.
        """
        found = self._idle.take() if waited else None
        return found or await self._connect()

    async def _connect(self) -> Exchange:
        exchange = Exchange(self._wall, self._ended)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await asyncio.get_running_loop().create_connection(
                    lambda: exchange, self._host, self._port, ssl=self._tls, server_hostname=self._server_name
                )
        except (OSError, ValueError) as error:
            raise _no_connection(error) from error
        return exchange

    def _request(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> bytes:
        content = _encode(body)
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        told = f"{path} HTTP/1.1\r\n{more}content-length: {len(content)}\r\n"
        return b"".join((self._post, told.encode("latin-1"), self._head, content))

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
        content = {} if body is None else _content(body)
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


def _content(body: dict[str, Any]) -> dict[str, Any]:
    encoded = _encode(body)
    headers = {"content-type": "application/json"}
    if len(encoded) <= _LARGE_BYTES:
        return {"content": encoded, "headers": headers}
    # aiohttp warns of large bodies in one piece. With their length they are not sent in chunks.
    return {"content": _slices(encoded), "headers": headers | {"content-length": str(len(encoded))}}


async def _slices(content: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), _LARGE_BYTES):
        yield content[start : start + _LARGE_BYTES]


def _lost(error: Exception, answered: bool) -> EngineError:
    # The transport calls a server that hangs up a connect timeout, so look at what lies below.
    cause = (error.__cause__ if isinstance(error, httpx.HTTPError) else None) or error
    if isinstance(cause, aiohttp.ClientResponseError):
        return garbled()
    if not answered and isinstance(cause, _NO_CONNECTION):
        return _no_connection(cause)
    return cut()


def _no_connection(error: Exception) -> EngineError:
    return exhausted() if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS else unreachable()


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
