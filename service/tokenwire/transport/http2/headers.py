"""A call's headers and trailers, as gRPC writes them in HTTP/2.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from hpack import NeverIndexedHeaderTuple

from tokenwire.transport.methods import DETAILS_KEY, Status

# What a call may bring: 16 KiB and not a byte more (docs/decisions/0015).
METADATA_MAX_BYTES = 16_384
# What HTTP/2 counts for a header beside its name and value.
_HEADER_BYTES = 32

RESPONSE = ((b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"gzip,deflate"))
OK = ((b"grpc-status", b"0"),)
LATE = ((b"grpc-status", b"4"), (b"grpc-message", b"Deadline Exceeded"))
NOT_POST = ((b":status", b"405"),)

_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a request's headers say.

    Attributes:
        http_method: POST, if it is gRPC.
        path: the method's full name.
        encoding: how a message whose flag says so is compressed.
        metadata: all others, by lower-case key, those that are text; the last value of a key counts.
        timeout: seconds from its arrival to its deadline, or None.
        too_large: there is more of it than a call may bring.
        broken: the deadline cannot be read.
    """

    http_method: bytes
    path: str
    encoding: str
    metadata: dict[str, str]
    timeout: float | None
    too_large: bool
    broken: bool


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Reads a request's headers, which h2 has checked."""
    metadata: dict[str, str] = {}
    http_method, path, size = b"", "", 0
    for name, value in headers:
        size += len(name) + len(value) + _HEADER_BYTES
        if name.startswith(b":"):
            if name == b":path":
                path = value.decode("latin-1")
            elif name == b":method":
                http_method = value
        elif not name.endswith(b"-bin"):
            try:
                metadata[name.decode()] = value.decode()
            except UnicodeDecodeError:
                continue
    timeout, broken = None, False
    if (text := metadata.get("grpc-timeout")) is not None:
        try:
            timeout = _seconds(text)
        except ValueError:
            broken = True
    return Head(
        http_method=http_method,
        path=path,
        encoding=metadata.get("grpc-encoding", ""),
        metadata=metadata,
        timeout=timeout,
        too_large=size > METADATA_MAX_BYTES,
        broken=broken,
    )


def trailers(status: Status) -> tuple[tuple[bytes, bytes], ...]:
    """Writes a status that is not OK."""
    return (
        (b"grpc-status", str(int(status.code)).encode()),
        # Each is another: they would only push others out of the compression's table.
        NeverIndexedHeaderTuple(b"grpc-message", quote(status.message, safe=_PRINTABLE).encode()),
        NeverIndexedHeaderTuple(DETAILS_KEY.encode(), base64.b64encode(status.details).rstrip(b"=")),
    )


def _seconds(text: str) -> float:
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) <= 8 and unit in _UNITS):
        raise ValueError("not a timeout")
    return int(number) * _UNITS[unit]
