"""What real engines sent, as tests/wire_captures keeps it; paths of the engines' machines are replaced there."""

import json
import re
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "wire_captures"


def body(engine: str, name: str) -> bytes:
    """Returns the body of a captured reply, without HTTP's chunk framing."""
    raw = (_FOLDER / engine / name).read_bytes()
    # Some captures begin with the request.
    start = re.search(rb"^HTTP/1\.1 \d+", raw, re.MULTILINE)
    if start is None:
        raise ValueError(f"{name} holds no reply")
    reply = raw[start.start() :]
    blank = re.search(rb"\r?\n\r?\n", reply)
    assert blank is not None
    content = reply[blank.end() :]
    return _joined(content) if re.match(rb"[0-9a-fA-F]+\r\n", content) else content


def events(stream: bytes) -> list[bytes]:
    """Returns the events of a stream, each with the empty line that ends it."""
    return [event + b"\n\n" for event in stream.split(b"\n\n") if event.strip()]


def errors(engine: str) -> dict[str, tuple[int, bytes]]:
    """Returns status and body of every refusal that was captured, by the capture's name."""
    stored = json.loads((_FOLDER / engine / "errors.json").read_text("utf-8"))
    return {name: (entry["status"], entry["body"].encode()) for name, entry in stored.items()}


def _joined(chunked: bytes) -> bytes:
    parts: list[bytes] = []
    while True:
        size, _, rest = chunked.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return b"".join(parts)
        parts.append(rest[:length])
        chunked = rest[length + 2 :]
