"""The admin port: /healthz, /readyz and /metrics over HTTP."""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from tokenwire.admin.connection import Connection
from tokenwire.admin.error import AdminError
from tokenwire.admin.readiness import Readiness

_log = structlog.get_logger()

# Returns the metrics and their content type, for the header Accept.
Exposition = Callable[[str], Awaitable[tuple[bytes, str]]]

SCRAPE_SECONDS = 5.0
# Whoever asks is a machine that closes at once; more than that is a fault or an attack.
CONNECTIONS_MAX = 64
# From its first byte to its last one.
CONNECTION_SECONDS = 10.0
_STOP_SECONDS = 1.0
_HEADERS_MAX_BYTES = 4096


class AdminPort:
    """Answers probes and Prometheus, to anybody who reaches the address; nothing here tells of requests or callers.

    Args:
        host: where to listen.
        port: the same; 0 takes a free one.
        readiness: what /readyz tells.
        scrape: what /metrics tells; None: there are no metrics.

    Attributes:
        port: the real one, once it listens.
    """

    def __init__(self, host: str, port: int, readiness: Readiness, scrape: Exposition | None) -> None:
        self.host = host
        self.port = port
        self._readiness = readiness
        self._scrape = scrape
        self._web: web.Server | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def __aenter__(self) -> Self:
        """Begins to listen. Raises AdminError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        # aiohttp's lines tell the address of whoever sent garbage.
        silent = logging.getLogger("tokenwire.admin.http")
        silent.disabled = True
        self._web = manager = web.Server(self._answer)

        def connection() -> Connection:
            return Connection(
                self._connections,
                CONNECTIONS_MAX,
                CONNECTION_SECONDS,
                manager,
                loop=loop,
                logger=silent,
                access_log=None,
                max_line_size=_HEADERS_MAX_BYTES,
                max_field_size=_HEADERS_MAX_BYTES,
                max_headers=64,
                lingering_time=0,
            )

        try:
            self._server = await loop.create_server(connection, self.host, self.port)
        except OSError as error:
            raise AdminError(f"cannot listen on {self.host}:{self.port}: {_why(error)}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops listening, and ends the connections there are."""
        assert self._server is not None
        assert self._web is not None
        self._server.close()
        await self._web.shutdown(_STOP_SECONDS)
        for connection in tuple(self._connections):
            connection.abort()
        await self._server.wait_closed()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._response(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.error("bug", at="admin", exc_info=error)
            response = web.Response(status=500, text="internal error\n")
        response.headers["Cache-Control"] = "no-store"
        # aiohttp's own tells its version, and Python's.
        response.headers["Server"] = "tokenwire"
        # One answer a connection: there is no state between them to reason about.
        response.force_close()
        return response

    async def _response(self, request: web.BaseRequest) -> web.Response:
        if request.path not in ("/healthz", "/readyz", "/metrics"):
            return web.Response(status=404, text="there is /healthz, /readyz and /metrics\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
        match request.path:
            case "/healthz":
                return web.Response(text="ok\n")
            case "/readyz":
                return self._ready()
            case _:
                return await self._metrics(request.headers.get("Accept", ""))

    def _ready(self) -> web.Response:
        report = self._readiness.report()
        body = {"ready": report.ready, "reasons": report.reasons, "engines": report.engines}
        return web.json_response(body, status=200 if report.ready else 503, dumps=_line)

    async def _metrics(self, accept: str) -> web.Response:
        if self._scrape is None:
            return web.Response(status=404, text="metrics are not scraped here: see otel_metrics_exporter\n")
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                body, content_type = await self._scrape(accept)
        except TimeoutError:
            return web.Response(status=503, text="the metrics took too long\n")
        return web.Response(body=body, headers={"Content-Type": content_type})


def _line(body: object) -> str:
    return json.dumps(body, ensure_ascii=False) + "\n"


def _why(error: OSError) -> str:
    # The event loop's own text repeats the address in a form of its own.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
