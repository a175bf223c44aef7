"""What `h2` knows of one connection, and the three places where it is not enough for a gRPC server.

h2 4.4.1; tests/unit/transport/http2/test_session.py holds what is relied on here, and docs/decisions/0018 says why.
"""

from collections.abc import Sequence
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event
from h2.exceptions import DenialOfServiceError, FrameTooLargeError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

# A lower bound leaves further streams of one channel hanging without a word.
STREAMS_MAX: Final = 4096
# A list of headers beyond it, packed or not, ends its connection; one beyond what a call may have ends the call.
HEADERS_MAX_BYTES: Final = 65_536
FRAME_HEADER_BYTES: Final = 9


class Session(H2Connection):
    """The protocol's state of one connection.

    Attributes:
        outbound_flow_control_window: bytes that may be written on all streams together.
        max_outbound_frame_size: of a frame without its header.
    """

    # Whose frames may still be on their way; a frame of a stream that is forgotten ends the connection.
    MAX_CLOSED_STREAMS = STREAMS_MAX

    def __init__(self) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                # What we send is made here.
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_MAX_BYTES,
            },
        )

    def take(self, data: bytes) -> list[Event]:
        """Returns what has come. Raises ProtocolError, and says why to the client, if that cannot be HTTP/2."""
        events = self.receive_data(data)
        # h2 waits for a whole frame before it says that it is too large.
        begun = self.incoming_buffer._data  # noqa: SLF001 - there is no other way to see it
        if len(begun) >= FRAME_HEADER_BYTES and int.from_bytes(begun[:3], "big") > self.max_inbound_frame_size:
            self.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError
        return events

    @property
    def open_inbound_streams(self) -> int:
        """The number of open streams: h2 goes through all of them for each new one."""
        return len(self.streams)

    def stream(self, stream_id: int) -> H2Stream:
        """Returns an open stream, whose outbound window is ours to count down."""
        return self.streams[stream_id]

    def finish(self, stream_id: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Ends a stream in both directions with its last headers."""
        self.send_headers(stream_id, headers, end_stream=True)
        if not self.streams[stream_id].closed:
            # The client has not ended its side, and need not.
            self.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    def forget(self, stream_id: int) -> None:
        """Forgets a stream that has ended in both directions."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._closed_streams[stream_id] = stream.closed_by

    def goaway(self) -> bytes:
        """Makes the frame after which a client begins no more streams here.

        h2's own would end those that run as well (python-hyper/h2, issue 1181).
        """
        frame = GoAwayFrame(0, last_stream_id=self.highest_inbound_stream_id, error_code=ErrorCodes.NO_ERROR)
        return frame.serialize()

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Frame], list[Event]]:
        """Takes headers, unless there are too many: hpack copies what is left of them for each one."""
        if len(frame.data) > HEADERS_MAX_BYTES:
            raise DenialOfServiceError
        return super()._receive_headers_frame(frame)

    def _receive_rst_stream_frame(self, frame: RstStreamFrame) -> tuple[list[Frame], list[Event]]:
        """Takes a reset, and makes room at once for the stream that may come right behind it."""
        taken = super()._receive_rst_stream_frame(frame)
        self.forget(frame.stream_id)
        return taken

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        """Takes a client's farewell: what it has begun goes on, and h2 would end it."""
        event = ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        return [], [event]
