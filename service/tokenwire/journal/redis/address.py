"""Where the store's server is, and how one is let in."""

import asyncio
from functools import partial
from typing import Any

from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from tokenwire.journal.journal import JournalError
from tokenwire.journal.redis.resp import Command, RefusalError, packed
from tokenwire.journal.redis.wire import Wire

_CLIENT_NAME = "tokenwire"


class Address:
    """Connects. What a URL means is what the Redis client says; the connection is our own.

    Args:
        url: redis://, rediss:// or unix://; valkey:// and valkeys:// mean the same.
        username: at the server; empty: the default user.
        password: at the server; empty: none.

    Raises JournalError if the URL cannot be understood.
    """

    def __init__(self, url: str, *, username: str = "", password: str = "") -> None:
        scheme, found, rest = url.partition("://")
        if found and scheme in ("valkey", "valkeys"):
            url = f"redis{scheme.removeprefix('valkey')}://{rest}"
        credentials: dict[str, Any] = {"username": username, "password": password}
        try:
            pool = ConnectionPool.from_url(
                url, protocol=2, **{name: value for name, value in credentials.items() if value}
            )
            # Never connected: it knows the parts of the URL, and what TLS it asks for.
            self._told: Any = pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, RedisError) as error:
            raise JournalError("the journal's address is no redis://, rediss:// or unix:// URL") from error

    async def connect(self, seconds: float) -> Wire:
        """Connects; the server may be silent for so many seconds. Raises OSError, StoreError, RefusalError."""
        loop, told, make = asyncio.get_running_loop(), self._told, partial(Wire, seconds)
        match told:
            case UnixDomainSocketConnection():
                _, wire = await loop.create_unix_connection(make, told.path)
            case SSLConnection():
                _, wire = await loop.create_connection(make, told.host, told.port, ssl=told.ssl_context.get())
            case Connection():
                _, wire = await loop.create_connection(make, told.host, told.port)
        try:
            commands = self._introduction
            answers = await wire.ask(b"".join(map(packed, commands)), len(commands))
            refused = next((answer for answer in answers if isinstance(answer, RefusalError)), None)
            if refused is not None:
                raise refused
        except BaseException:
            await wire.close()
            raise
        return wire

    @property
    def _introduction(self) -> list[Command]:
        told = self._told
        commands: list[Command] = [("CLIENT", "SETNAME", _CLIENT_NAME)]
        if told.username or told.password:
            names = (told.username,) if told.username else ()
            commands.insert(0, ("AUTH", *names, told.password or ""))
        if told.db:
            commands.append(("SELECT", told.db))
        return commands
