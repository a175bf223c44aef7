"""The requests of a batch, from a file of JSON lines."""

import asyncio
import json
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from google.protobuf.json_format import ParseDict, ParseError

from tokenwire.cli.failure import USAGE, CommandError
from tokenwire.v1.batch_service_pb2 import BatchItem
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest

_MAX_ID_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: an item, or what is wrong with it."""

    item_id: str
    item: BatchItem | None = None
    wrong: str = ""


class Lines:
    """Reads a file, a pipe or standard input, line by line.

    Args:
        name: the file; - is standard input.
        model: the model of lines that name none.
        skips: whether a line's id needs no answer any more.

    Attributes:
        total: how many lines there are to answer; 0 if that is not known.
    """

    def __init__(self, name: str, *, model: str, skips: Callable[[str], bool]) -> None:
        self.total = 0
        self._name = name
        self._model = model
        self._skips = skips
        self._number = 0
        self._seen: set[str] = set()
        self._pipe: _Pipe | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self._name == "-":
            self._pipe = _Pipe(sys.stdin.buffer)
            return self
        path = Path(self._name)
        try:
            self._file = path.open("rb")
            if path.is_file():
                lines = (_parsed(number, data, self._model) for number, data in enumerate(self._file, 1))
                self.total = sum(line is not None and not self._skips(line.item_id) for line in lines)
                self._file.seek(0)
            else:
                self._pipe = _Pipe(self._file)
        except OSError as error:
            if self._file is not None:
                self._file.close()
            raise CommandError(f"cannot read {self._name}: {error.strerror}", exit_code=USAGE) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A pipe's thread may be reading it; the process ends soon.
        if self._file is not None and self._pipe is None:
            self._file.close()

    async def next(self) -> Line | None:
        """Returns the next line to answer, or None after the last one. Cancelled, it loses none."""
        while True:
            data = await self._data()
            if not data:
                return None
            self._number += 1
            line = _parsed(self._number, data, self._model)
            if line is None or self._skips(line.item_id):
                continue
            if line.item_id in self._seen:
                return Line(item_id=line.item_id, wrong=f"line {self._number}: an earlier line has the same id")
            self._seen.add(line.item_id)
            return line

    async def _data(self) -> bytes:
        if self._pipe is not None:
            return await self._pipe.line()
        assert self._file is not None, "there is one inside the block"
        return self._file.readline()


class _Pipe:
    """Reads lines in a thread: a pipe may have nothing to say for long, and nobody can interrupt a read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._asked: queue.SimpleQueue[asyncio.Future[bytes]] = queue.SimpleQueue()
        self._coming: asyncio.Future[bytes] | None = None
        # The process does not wait for it.
        threading.Thread(target=self._work, name="batch input", daemon=True).start()

    async def line(self) -> bytes:
        """Returns the next line; empty at the end."""
        if self._coming is None:
            self._coming = asyncio.get_running_loop().create_future()
            self._asked.put(self._coming)
        # Whoever is cancelled here leaves the line to the next one who asks.
        data = await asyncio.shield(self._coming)
        self._coming = None
        return data

    def _work(self) -> None:
        while True:
            future = self._asked.get()
            try:
                data = self._stream.readline()
            except (OSError, ValueError):
                data = b""
            try:
                future.get_loop().call_soon_threadsafe(future.set_result, data)
            except RuntimeError:
                # The loop is closed: nobody wants it any more.
                return


def _parsed(number: int, data: bytes, model: str) -> Line | None:
    """Reads a line; None if it is blank."""
    if not data.strip():
        return None
    item_id = str(number)
    try:
        given: Any = json.loads(data)
        if not isinstance(given, dict):
            raise ValueError("no JSON object")
        item_id = _id(given.pop("id", item_id))
        item = BatchItem(item_id=item_id)
        request: GenerateRequest | ChatRequest = item.chat if "messages" in given else item.generate
        request.SetInParent()
        ParseDict(given, request)
    except (ValueError, RecursionError, ParseError) as error:
        return Line(item_id=item_id, wrong=f"line {number}: {_reason(error)}")
    request.model = request.model or model
    return Line(item_id=item_id, item=item)


def _id(given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int) or not str(given):
        raise ValueError("the id is no text")
    if len(str(given).encode()) > _MAX_ID_BYTES:
        raise ValueError(f"the id has more than {_MAX_ID_BYTES} bytes")
    return str(given)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "no JSON"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    # The first line says what is wrong.
    return str(error).partition("\n")[0]
