"""The framings of engines' streams, server-sent events and JSON lines: bytes in any cut to whole payloads."""

from collections.abc import Callable
from dataclasses import dataclass

from tokenwire.engines.failure import garbled

# An engine's event is a token with its log probabilities; a longer one is garbage.
MAX_EVENT_BYTES = 8 * 1024 * 1024
# What a line costs in memory beside its bytes; empty data lines without end would not count otherwise.
_LINE_BYTES = 48


class EventSplitter:
    """Splits a byte stream into the data payloads of its events.

    Lines end with LF or CRLF; several data lines of one event are joined with a newline; comments and other fields are
    skipped, as the HTML standard says (https://html.spec.whatwg.org/multipage/server-sent-events.html). An event that
    has not ended with an empty line is never handed out.
    """

    __slots__ = ("_data", "_data_bytes", "_rest", "_rest_bytes")

    def __init__(self) -> None:
        # The beginning of a line, as it came: joining at each chunk would cost the square of a long line.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Returns the payloads of the events that end in `chunk`."""
        if not self._rest and not self._data and chunk.startswith(b"data: ") and chunk.endswith(b"\n\n"):
            # One whole event a read is what engines send, or several; spare them the line loop.
            body = chunk[6:-2]
            if b"\r" not in body:
                if b"\n" not in body:
                    return [body]
                payloads = body.split(b"\n\ndata: ")
                if body.count(b"\n") == 2 * (len(payloads) - 1):
                    return payloads
        if b"\n" not in chunk:
            self._keep(chunk)
            return []
        self._rest.append(chunk)
        lines = b"".join(self._rest).split(b"\n")
        self._rest, self._rest_bytes = [], 0
        last = lines.pop()
        payloads = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                if self._data:
                    payloads.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data, self._data_bytes = [], 0
            elif line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._data.append(value)
                self._data_bytes += len(value) + _LINE_BYTES
        self._keep(last)
        return payloads

    @property
    def unfinished(self) -> bool:
        """Whether the stream stopped inside an event."""
        return bool(self._rest or self._data)

    def _keep(self, part: bytes) -> None:
        if part:
            self._rest.append(part)
            self._rest_bytes += len(part)
        if self._rest_bytes + self._data_bytes > MAX_EVENT_BYTES:
            raise garbled()


class LineSplitter:
    """Splits a byte stream into its lines, empty ones left out. A line that has not ended is never handed out."""

    __slots__ = ("_rest", "_rest_bytes")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Returns the lines that end in `chunk`."""
        if b"\n" in chunk:
            self._rest.append(chunk)
            *lines, chunk = b"".join(self._rest).split(b"\n")
            self._rest, self._rest_bytes = [], 0
        else:
            lines = []
        if chunk:
            self._rest.append(chunk)
            self._rest_bytes += len(chunk)
            if self._rest_bytes > MAX_EVENT_BYTES:
                raise garbled()
        return [line for line in lines if line and not line.isspace()]

    @property
    def unfinished(self) -> bool:
        """Whether the stream stopped inside a line."""
        return bool(self._rest)


@dataclass(frozen=True, slots=True)
class Framing:
    """A stream's media type, and what splits it."""

    media_type: str
    splitter: Callable[[], EventSplitter | LineSplitter]


EVENTS = Framing("text/event-stream", EventSplitter)
LINES = Framing("application/x-ndjson", LineSplitter)
