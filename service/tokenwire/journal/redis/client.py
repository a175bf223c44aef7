"""The connections to the store's server, and what its errors mean."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, OutOfMemoryError, RedisError, ResponseError

from tokenwire.journal.journal import JournalError
from tokenwire.journal.redis import scripts
from tokenwire.journal.redis.scripts import Script
from tokenwire.journal.redis.store import StoreError, StoreFullError

Command = tuple[str | bytes | float, ...]


def call(script: Script, keys: Sequence[str], *args: str | bytes | int) -> Command:
    """Returns the command that runs a script."""
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


class Client:
    """Runs commands; each one fails for good or is answered within a time.

    Args:
        url: redis://, rediss:// or unix://; valkey:// and valkeys:// mean the same.
        seconds: how long an answer may take.
        username: at the server; empty: the default user.
        password: at the server; empty: none.

    Raises JournalError if the URL cannot be understood.
    """

    def __init__(self, url: str, seconds: float, *, username: str = "", password: str = "") -> None:
        scheme, found, rest = url.partition("://")
        if found and scheme in ("valkey", "valkeys"):
            url = f"redis{scheme.removeprefix('valkey')}://{rest}"
        credentials: dict[str, Any] = {"username": username, "password": password}
        try:
            self._redis: Redis = Redis.from_url(
                url,
                protocol=2,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                # Whoever calls knows when to try again.
                retry=Retry(NoBackoff(), 0),
                client_name="tokenwire",
                **{name: value for name, value in credentials.items() if value},
            )
        except ValueError as error:
            raise JournalError("the journal's address is no redis://, rediss:// or unix:// URL") from error
        # Answers are read as they are: the client's own reading of them differs between its versions.
        self._redis.response_callbacks.clear()

    async def run(self, *commands: Command) -> list[Any]:
        """Runs commands in one go and returns their answers. Raises StoreError if one of them fails."""
        answers = await self._send(commands)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # A server that was started anew. Steps may be sent again, so the others do no harm.
            await self._send([("SCRIPT", "LOAD", one.source) for one in scripts.ALL])
            answers = await self._send(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise _meaning(answer) from answer
        return answers

    async def one(self, *command: str | bytes | float) -> Any:
        """Runs one command and returns its answer."""
        return (await self.run(command))[0]

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        task = asyncio.current_task()
        asked = task.cancelling() if task is not None else 0
        try:
            answers = await pipeline.execute(raise_on_error=False)
            if task is not None and task.cancelling() > asked:
                # Python 3.11's wait_for, which the client sends by, may swallow a cancel (python/cpython#86296).
                raise asyncio.CancelledError
            return answers
        except (RedisError, OSError) as error:
            # The other connections lead to the same server, or to one that is no primary any more.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise _meaning(error) from error


def _meaning(error: Exception) -> StoreError:
    if isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in str(error)):
        return StoreFullError("the journal's server is out of memory")
    if isinstance(error, AuthenticationError):
        return StoreError("the journal's server refuses the credentials")
    # An answer may hold what was sent, so it is not told.
    return StoreError(f"the journal's server does not answer as it should ({type(error).__name__})")
