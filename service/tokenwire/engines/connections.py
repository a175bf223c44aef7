"""The connections to an engine: how many, how long, and what is said when one breaks."""

import asyncio
import ssl
from functools import partial

import aiohttp
from aiohttp.client_proto import ResponseHandler

# Below the 5 s after which uvicorn and llama.cpp hang up: a request must not meet a connection that is being closed.
KEEPALIVE_SECONDS = 2.0


def session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """Returns a session without cookies whose connections are as many as there are streams.

    How many streams there may be is for the dispatcher to say; at aiohttp's default of 100 connections, which the
    transport takes where httpx says None, stream 101 would wait for ever.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ssl=tls)
    kind: type[ResponseHandler] = _Connection
    connector._factory = partial(kind, loop=asyncio.get_running_loop())  # noqa: SLF001 - there is no other way in
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class _Connection(ResponseHandler):
    """Ends the body when HTTP's framing breaks.

    aiohttp (seen in 3.14.5 with its C parser) closes the connection then and tells everybody but the body's reader, who
    waits for ever.
    """

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the framing is broken"))
