"""Commands to the store's server, and what its errors mean."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tokenwire.journal.redis import scripts
from tokenwire.journal.redis.address import Address
from tokenwire.journal.redis.resp import Command, RefusalError, Word, packed
from tokenwire.journal.redis.scripts import Script
from tokenwire.journal.redis.store import StoreError, StoreFullError
from tokenwire.journal.redis.wire import Wire

_BY_NAME = ("NOAUTH", "WRONGPASS", "NOPERM")


def call(script: Script, keys: Sequence[str], *args: Word) -> Command:
    """Returns the command that runs a script."""
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


class Client:
    """Runs commands over one connection, which is made when it is needed; each one fails for good or is answered.

    Args:
        address: of the server.
        seconds: how long the server may be silent while it is to answer.
    """

    def __init__(self, address: Address, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()

    async def run(self, *commands: Command) -> list[Any]:
        """Runs commands in one go and returns their answers. Raises StoreError if one of them fails."""
        return await self.run_packed(b"".join(map(packed, commands)), len(commands))

    async def run_packed(self, commands: bytes, count: int) -> list[Any]:
        """As `run`, for so many commands that are bytes already."""
        try:
            answers = await self._ask(commands, count)
            refused = _refused(answers)
            if any(str(one).startswith("NOSCRIPT") for one in refused):
                # A server that was started anew. Steps may be sent again, so the others do no harm.
                load = b"".join(packed(("SCRIPT", "LOAD", one.source)) for one in scripts.ALL)
                await self._ask(load, len(scripts.ALL))
                answers = await self._ask(commands, count)
                refused = _refused(answers)
        except OSError as error:
            raise StoreError(_unanswered(type(error).__name__)) from error
        except RefusalError as error:
            raise _meaning(error) from error
        if refused:
            raise _meaning(refused[0]) from refused[0]
        return answers

    async def one(self, *command: Word) -> Any:
        """Runs one command and returns its answer."""
        return (await self.run(command))[0]

    async def close(self) -> None:
        """Closes the connection."""
        if self._wire is not None:
            await self._wire.close()

    async def _ask(self, commands: bytes, count: int) -> list[Any]:
        wire = self._wire
        if wire is None or wire.lost:
            wire = await self._connected()
        return await wire.ask(commands, count)

    async def _connected(self) -> Wire:
        async with self._connecting:
            if self._wire is None or self._wire.lost:
                async with asyncio.timeout(self._seconds):
                    self._wire = await self._address.connect(self._seconds)
            return self._wire


def _refused(answers: list[Any]) -> list[RefusalError]:
    return [answer for answer in answers if type(answer) is RefusalError]


def _meaning(refusal: RefusalError) -> StoreError:
    said = str(refusal)
    if "OOM" in said:
        return StoreFullError("the journal's server is out of memory")
    name = said.partition(" ")[0]
    if name in _BY_NAME or " AUTH " in said:
        return StoreError("the journal's server refuses the credentials")
    # The rest may hold what was sent, so it is not told.
    return StoreError(_unanswered(name if name.isalpha() and name.isupper() else "an error"))


def _unanswered(cause: str) -> str:
    return f"the journal's server does not answer as it should ({cause})"
