"""A connection to a service, for a command that is not a coroutine itself."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from grpc import aio

from tokenwire.cli.failure import CommandError
from tokenwire.cli.rpc_failure import failure_of

T = TypeVar("T")

_OPTIONS = [
    # A dead peer is noticed even while nothing is written, during a long prefill.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class Connection:
    """A channel and the event loop it lives in.

    Args:
        target: the server's address.
        as_json: errors are told as JSON.

    Attributes:
        channel: for stubs; there is one inside the `with` block.
    """

    channel: aio.Channel

    def __init__(self, target: str, *, as_json: bool = False) -> None:
        self.target = target
        self._as_json = as_json
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self._runner.run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self.channel.close())
        finally:
            self._runner.__exit__(kind, error, traceback)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine. Raises CommandError for a gRPC error, KeyboardInterrupt at Ctrl-C."""
        try:
            return self._runner.run(work)
        except aio.AioRpcError as error:
            failure = failure_of(error, self.target)
        except CommandError as caught:
            failure = caught
        failure.as_json = self._as_json
        raise failure from None

    async def _open(self) -> None:
        self.channel = aio.insecure_channel(self.target, options=_OPTIONS)
