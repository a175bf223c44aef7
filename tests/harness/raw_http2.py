"""An HTTP/2 client that does exactly as it is told, also what no good client does."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame


def grpc_message(data: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """Frames a message as gRPC does; `length` says another one than it has."""
    return bytes([compressed]) + (len(data) if length is None else length).to_bytes(4, "big") + data


class RawHttp2:
    """One connection. It never opens a flow-control window again, so every server is blocked sooner or later.

    Attributes:
        data: the bytes of each stream's answer.
        headers: each stream's headers and trailers, joined.
        ended: the streams that the server ended or reset.
        goaway: why the server closed the connection, once it has said so.
        closed: the server closed the connection.
        resets: the streams that the server reset, and why.
        pings: how many pings the server answered.
        largest_frame: the length of the longest DATA frame.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int) -> None:
        self.window = window
        self.data: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.headers: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self.ended: set[int] = set()
        self.goaway: ErrorCodes | int | None = None
        self.closed = False
        self.resets: dict[int, int] = {}
        self.pings = 0
        self.largest_frame = 0
        self._acknowledged = 0
        self._reader = reader
        self._writer = writer
        self._reads = asyncio.Event()
        self._reads.set()
        self._port: int = writer.get_extra_info("peername")[1]
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8", validate_outbound_headers=False))
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        """Sends the preface, and waits until the server knows the window."""
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.window})
        await self.flush()
        await self.wait(lambda: self._acknowledged == 2, "the server knows our settings")

    async def request(
        self,
        method: str,
        body: bytes = grpc_message(b""),
        *,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = "application/grpc",
        http_method: str = "POST",
        end: bool = True,
        flush: bool = True,
    ) -> int:
        """Starts a call and returns its stream's number."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(
            stream,
            [
                (":method", http_method),
                (":scheme", "http"),
                (":path", method),
                (":authority", f"127.0.0.1:{self._port}"),
                ("te", "trailers"),  # codespell:ignore te
                ("content-type", content_type),
                *headers,
            ],
        )
        if body or end:
            self._h2.send_data(stream, body, end_stream=end)
        if flush:
            await self.flush()
        return stream

    async def more(self, stream: int, data: bytes, *, end: bool) -> None:
        """Sends more of a request."""
        self._h2.send_data(stream, data, end_stream=end)
        await self.flush()

    async def reset(self, stream: int, *, flush: bool = True) -> None:
        """Cancels a call."""
        self._h2.reset_stream(stream, ErrorCodes.CANCEL)
        if flush:
            await self.flush()

    async def ping(self, number: int) -> None:
        """Sends so many pings at once."""
        for one in range(number):
            self._h2.ping(one.to_bytes(8, "big"))
        await self.flush()

    async def opened(self, size: int, stream: int | None = None) -> None:
        """Lets so much more through, on a stream or on the whole connection."""
        self._h2.increment_flow_control_window(size, stream)
        await self.flush()

    async def settings(self, settings: Mapping[SettingCodes | int, int]) -> None:
        """Changes settings, and waits until the server knows."""
        known = self._acknowledged
        self._h2.update_settings(dict(settings))
        await self.flush()
        await self.wait(lambda: self._acknowledged > known or self.closed, "the server knows our settings")

    async def send(self, *frames: Frame | bytes) -> None:
        """Sends frames in one segment as they are, allowed or not."""
        self._writer.write(b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames))
        await self._writer.drain()

    def stop_reading(self) -> None:
        """Leaves what the server sends in the socket."""
        self._reads.clear()

    def read_on(self) -> None:
        """Takes what the server sends."""
        self._reads.set()

    async def flush(self) -> None:
        """Sends what was said."""
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()

    async def exhausted(self, stream: int) -> None:
        """Waits until the server has filled the stream's window, and so is blocked."""
        await self.wait(lambda: len(self.data[stream]) >= self.window, f"the window of stream {stream} is full")

    async def answered(self, stream: int) -> dict[str, str]:
        """Waits for the end of a call, and returns its headers and trailers."""
        await self.wait(lambda: stream in self.ended or self.closed, f"stream {stream} has ended")
        return self.headers[stream]

    async def wait(self, condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Waits until something that the server sent makes the condition true."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"waited in vain: {what}") from None

    async def receive(self) -> None:
        """Takes what the server sends until it closes the connection."""
        buffer = bytearray()
        with suppress(ConnectionError):
            while data := await self._read():
                buffer += data
                while len(buffer) >= 9 and len(buffer) >= (size := 9 + int.from_bytes(buffer[:3], "big")):
                    frame = bytes(buffer[:size])
                    del buffer[:size]
                    if frame[3] == GoAwayFrame.type:
                        # h2 takes a connection for closed at the first one, and knows nothing after it.
                        self.goaway = int.from_bytes(frame[13:17], "big")
                        continue
                    if frame[3] == 0:
                        self.largest_frame = max(self.largest_frame, size - 9)
                    for event in self._h2.receive_data(frame):
                        self._take(event)
                async with self._changed:
                    self._changed.notify_all()
                await self.flush()
        self.closed = True
        async with self._changed:
            self._changed.notify_all()

    async def _read(self) -> bytes:
        data = await self._reader.read(65536)
        await self._reads.wait()
        return data

    def _take(self, event: Event) -> None:
        match event:
            case DataReceived(stream_id=stream, data=data):
                self.data[stream] += data
            case (
                ResponseReceived(stream_id=stream, headers=headers)
                | TrailersReceived(stream_id=stream, headers=headers)
            ):
                self.headers[stream] |= {_text(name): _text(value) for name, value in headers or ()}
            case StreamEnded(stream_id=stream):
                self.ended.add(stream)
            case StreamReset(stream_id=stream, error_code=code):
                self.ended.add(stream)
                self.resets[stream] = code or 0
            case SettingsAcknowledged():
                self._acknowledged += 1
            case PingAckReceived():
                self.pings += 1


@asynccontextmanager
async def raw_http2(port: int, *, window: int = 65_535) -> AsyncIterator[RawHttp2]:
    """Connects while the block runs; `window` is what the server may send on each stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = RawHttp2(reader, writer, window)
    receiving = asyncio.create_task(raw.receive(), name="raw http2")
    try:
        await raw.start()
        yield raw
    finally:
        receiving.cancel()
        await asyncio.wait([receiving])
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        if not receiving.cancelled():
            receiving.result()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
