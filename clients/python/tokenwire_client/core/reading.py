"""What can be seen of a run while it is read."""

from tokenwire.v1.cursor_pb2 import CHANNEL_KIND_REASONING, Cursor
from tokenwire.v1.event_pb2 import End
from tokenwire.v1.finish_pb2 import Usage
from tokenwire.v1.run_pb2 import ToolCall
from tokenwire_client.core.answer import tool_calls_of
from tokenwire_client.core.channel import Channel
from tokenwire_client.core.following import Following


class Reading:
    """A run as far as its events were given out. A reading that began in the middle has what came from there on."""

    def __init__(self, following: Following) -> None:
        self._following = following

    @property
    def run_id(self) -> str:
        """The run's id; empty as long as it is not known."""
        return self._following.run_id

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self._following.request_id

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on; None: at the start."""
        return self._following.cursor

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return self._following.read.text(Channel())

    @property
    def texts(self) -> dict[int, str]:
        """Each choice's text so far."""
        read = self._following.read
        return {one.choice: read.text(one) for one in sorted(read.texts) if one == Channel(one.choice)}

    @property
    def reasoning(self) -> str:
        """The first choice's reasoning so far."""
        return self._following.read.text(Channel(0, CHANNEL_KIND_REASONING))

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The first choice's tool calls so far."""
        return tool_calls_of(self._following.read, 0)

    @property
    def usage(self) -> Usage | None:
        """The run's tokens; those of the prompt alone until the end; None: not told yet."""
        read = self._following.read
        if read.end is not None:
            return read.end.usage
        return read.usage.usage if read.usage is not None else None

    @property
    def end(self) -> End | None:
        """How the run ended; None as long as it has not."""
        return self._following.read.end
