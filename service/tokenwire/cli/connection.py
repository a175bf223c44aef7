"""A client of a service, for a command that is not a coroutine itself."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from grpc import ChannelConnectivity, aio

from tokenwire.cli.failure import CommandError
from tokenwire.cli.options import DEFAULT_RETRIES
from tokenwire.cli.rpc_failure import failure_of
from tokenwire_client import AsyncClient, Policy, TokenwireClientError

T = TypeVar("T")


class Connection:
    """A client and the event loop it lives in.

    Args:
        target: the server's address.
        as_json: errors are told as JSON.
        retries: how often a broken line is taken up again, until something new comes.

    Attributes:
        client: the client.
    """

    def __init__(self, target: str, *, as_json: bool = False, retries: int = DEFAULT_RETRIES) -> None:
        self.target = target
        # Whoever mistypes an address is to hear so at once.
        self.client = AsyncClient(target, policy=Policy(attempts=retries, wait_for_server=False))
        self._as_json = as_json
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self.client.close())
        finally:
            self._runner.__exit__(kind, error, traceback)

    @property
    def channel(self) -> aio.Channel:
        """The channel, for stubs; to be asked for in a coroutine."""
        return self.client.channel

    def made(self, timeout: float | None = None) -> float | None:
        """Connects, and returns how many milliseconds that took; None if it fails, which the next call will explain."""
        return self._runner.run(self._made(timeout))

    async def _made(self, timeout: float | None) -> float | None:
        began = time.monotonic()
        channel = self.channel
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while (state := channel.get_state(try_to_connect=True)) is not ChannelConnectivity.READY:
                    if state in (ChannelConnectivity.TRANSIENT_FAILURE, ChannelConnectivity.SHUTDOWN):
                        return None
                    await channel.wait_for_state_change(state)
                return (time.monotonic() - began) * 1000
        return None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine. Raises CommandError for an error of the client or of gRPC, KeyboardInterrupt at Ctrl-C."""
        try:
            return self._runner.run(work)
        except (TokenwireClientError, aio.AioRpcError) as error:
            failure = failure_of(error, self.target)
        except CommandError as caught:
            failure = caught
        failure.as_json = self._as_json
        raise failure from None
