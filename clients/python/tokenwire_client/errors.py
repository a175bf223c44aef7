"""Everything that a client raises."""

from collections.abc import Mapping

from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire_client.core.channel import Channel
from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure, Violation


class TokenwireClientError(Exception):
    """A call, or a run, did not go well. Says why, what was read until then, and where to go on.

    Attributes:
        failure: the status as a whole.
        run_id: the run, if there is one and it is known.
        request_id: the request that it answers.
        cursor: what was read; `client.attach(run_id, after=cursor)` goes on after it. None: nothing was.
        texts: every channel's text so far.
    """

    def __init__(
        self,
        failure: Failure,
        *,
        run_id: str = "",
        request_id: str = "",
        cursor: Cursor | None = None,
        texts: Mapping[Channel, str] | None = None,
    ) -> None:
        reason = f" ({failure.reason})" if failure.reason else ""
        super().__init__(f"{failure.code.name}{reason}: {failure.message}")
        self.failure = failure
        self.run_id = run_id
        self.request_id = request_id
        self.cursor = cursor
        self.texts: Mapping[Channel, str] = texts if texts is not None else {}

    @property
    def code(self) -> Code:
        """The gRPC status."""
        return self.failure.code

    @property
    def reason(self) -> str:
        """The server's stable word; empty if it gave none."""
        return self.failure.reason

    @property
    def message(self) -> str:
        """One sentence for people."""
        return self.failure.message

    @property
    def retryable(self) -> bool:
        """Whether the same request may work when it is sent again."""
        return self.failure.retryable or self.failure.broken

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before that, if the server says so."""
        return self.failure.retry_after

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The fields at fault."""
        return self.failure.violations

    @property
    def rpc_id(self) -> str:
        """Names the call in the server's log."""
        return self.failure.rpc_id

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return self.texts.get(Channel(), "")


class RefusedError(TokenwireClientError):
    """The server refuses: the request is wrong, nothing has that name, there is no room, and the like."""


class RunFailedError(TokenwireClientError):
    """The run ended with an error. Its text stays what it is; only a new request may do better."""


class BrokenError(TokenwireClientError):
    """The line broke, and the client has given up going on. The run may live: attach after the cursor, or cancel it."""


class IntegrityError(TokenwireClientError):
    """What came is not what the server wrote: a gap, another checksum, or a stream without its end."""


class OverdueError(TokenwireClientError):
    """The time that the caller gave is over."""
