"""A reply that is not the stream that was asked for."""

from collections.abc import Callable

from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.failure import refusal, retry_after

MAX_ERROR_BYTES = 64 * 1024


class Refused:
    """Gathers such a reply's body, and says what it means.

    Args:
        status: its HTTP status.
        wait: its Retry-After header, if it has one.
        wall: wall-clock seconds, for Retry-After dates.
    """

    __slots__ = ("_body", "_status", "_wait", "_wall")

    def __init__(self, status: int, wait: bytes | None, wall: Callable[[], float]) -> None:
        self._status = status
        self._wait = wait
        self._wall = wall
        self._body = b""

    def add(self, part: bytes) -> None:
        """Takes a part of the body. Raises EngineError as soon as no more of it is needed."""
        self._body += part
        if self._status == 200 or len(self._body) > MAX_ERROR_BYTES:
            raise self.error()

    def error(self) -> EngineError:
        """Returns what the reply means to a caller."""
        if self._status == 200:
            text = "the engine did not answer with a stream"
            return EngineError(Code.UNAVAILABLE, "UPSTREAM_PROTOCOL", text, retryable=True)
        wait = retry_after(self._wait.decode("latin-1") if self._wait is not None else None, self._wall())
        return refusal(self._status, self._body[:MAX_ERROR_BYTES], wait=wait)
