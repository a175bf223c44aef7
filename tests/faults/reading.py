"""A stream read by the real client, with every event checked once more by the test itself."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from faults.engine import expected
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import Continuation, Dispatched, End, Event
from tokenwire_client import AsyncStream, Failure, TokenwireClientError

PROMPT = "Where does it go?"
COMES_SECONDS = 30.0


class Reader:
    """Reads a stream in a task of its own.

    Attributes:
        stream: what is read.
        texts: each choice's text so far.
        tokens: how many tokens were told, of all choices.
        dispatched: which engines wrote it, and how each went on.
        joints: where each choice's text was, in bytes, when each of these came.
        failures: how the line broke.
        error: what the client has raised.
        end: the run's end.
        over: whether nothing comes any more.
    """

    def __init__(self) -> None:
        self.stream: AsyncStream | None = None
        self.texts: dict[int, str] = defaultdict(str)
        self.tokens = 0
        self.dispatched: list[Dispatched] = []
        self.joints: list[dict[int, int]] = []
        self.failures: list[Failure] = []
        self.error: TokenwireClientError | None = None
        self.end: End | None = None
        self._offsets: dict[int, tuple[int, int]] = {}
        self._seq = 0
        self.over = False
        self._broken: AssertionError | None = None
        self._changed = asyncio.Event()

    @property
    def run_id(self) -> str:
        """The run."""
        assert self.stream is not None
        return self.stream.run_id

    @property
    def cursor(self) -> Cursor | None:
        """How far it has read."""
        assert self.stream is not None
        return self.stream.cursor

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.texts[0]

    @property
    def ways(self) -> list[str]:
        """How each attempt went on."""
        return [Continuation.Name(one.continuation).removeprefix("CONTINUATION_") for one in self.dispatched]

    async def comes(self, condition: Callable[[], bool]) -> None:
        """Waits until something holds of what was read; fails if the stream ends before."""
        await self._until(lambda: condition() or self.over)
        assert condition(), f"the stream was over before, with {self.error or 'its end'}"

    async def reads(self, tokens: int) -> None:
        """Waits until so many tokens were told."""
        await self.comes(lambda: self.tokens >= tokens)

    async def ended(self) -> None:
        """Waits until nothing comes any more, for whatever reason."""
        await self._until(lambda: self.over)

    async def finished(self) -> End:
        """Waits for the end of a stream that has to be whole. Raises what the client raised."""
        await self.ended()
        if self.error is not None:
            raise self.error
        assert self.end is not None
        return self.end

    async def failed(self) -> TokenwireClientError:
        """Waits for the error that the client raises."""
        await self.ended()
        assert self.error is not None, "it ended well"
        return self.error

    async def read(self, stream: AsyncStream) -> None:
        """Reads to the end."""
        self.stream = stream
        try:
            async with stream:
                async for event in stream:
                    self._take(event)
                    self._changed.set()
        except TokenwireClientError as error:
            self.error = error
        except AssertionError as broken:
            self._broken = broken
        finally:
            self.over = True
            self._changed.set()

    def broke(self, attempt: int, failure: Failure, seconds: float) -> None:
        """Notes that the line broke."""
        self.failures.append(failure)
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(COMES_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
        if self._broken is not None:
            raise self._broken

    def _take(self, event: Event) -> None:
        assert event.cursor.seq >= self._seq, "P2: the cursor went back"
        self._seq = event.cursor.seq
        match event.WhichOneof("event"):
            case "delta":
                delta = event.delta
                at, tokens = self._offsets.get(delta.choice, (delta.byte_offset, delta.token_offset))
                assert (delta.byte_offset, delta.token_offset) == (at, tokens), "P2: a gap, or a duplicate"
                self._offsets[delta.choice] = at + len(delta.text.encode()), tokens + delta.token_count
                self.texts[delta.choice] += delta.text
                self.tokens += delta.token_count
            case "dispatched":
                before = self.dispatched[-1].attempt if self.dispatched else 0
                assert event.dispatched.attempt > before, "P2: an attempt came again"
                self.dispatched.append(event.dispatched)
                self.joints.append({choice: at for choice, (at, _) in self._offsets.items()})
            case "end":
                assert self.end is None, "P1: a second end"
                self.end = event.end


@asynccontextmanager
async def reading(stream: Callable[..., AsyncStream], *given: Any, **options: Any) -> AsyncIterator[Reader]:
    """Reads while the block runs: `stream` is a method of a client that returns one, called with the rest."""
    reader = Reader()
    task = asyncio.create_task(reader.read(stream(*given, on_reconnect=reader.broke, **options)), name="reader")
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        # A bug of the test's own.
        task.result()


async def whole(reader: Reader, prompt: str, tokens: int, n: int = 1) -> End:
    """Waits for the end of a stream that was read from its start, and checks it against an unbroken answer."""
    end = await reader.finished()
    answers = {choice: expected(prompt, tokens, choice) for choice in range(n)}
    for choice in range(1, n):
        if any(choice not in joint for joint in reader.joints[1:]) and reader.texts[choice] == answers[0]:
            # It was begun anew, as an answer of its own: which has the first choice's text, of this engine.
            answers[choice] = answers[0]
    assert dict(reader.texts) == answers, f"{reader.ways}, joints {reader.joints}"
    told = {one.choice: (one.bytes, one.tokens, one.sha256) for one in end.channels}
    assert {choice: (size, digest) for choice, (size, _, digest) in told.items()} == {
        choice: (len(text.encode()), hashlib.sha256(text.encode()).hexdigest()) for choice, text in answers.items()
    }
    assert end.usage.output_tokens == n * tokens
    assert [one.attempt for one in reader.dispatched] == list(range(1, len(reader.dispatched) + 1))
    return end
