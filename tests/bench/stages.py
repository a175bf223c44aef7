"""What each stage of a token's way through the process costs by itself: `python -m bench.stages`.

The stages are called as they are in the server, without grpc, a network or an event loop's turn in between; the best of
several repetitions counts, in CPU time. What grpc.aio adds is seen in the whole: bench.gateways.bare.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable

from tokenwire.delivery.view import View
from tokenwire.dispatch.writer import Writer
from tokenwire.domain.cursor import Channel
from tokenwire.domain.generation import Piece, Pieces
from tokenwire.engines.exchange import Exchange
from tokenwire.engines.framing import EventSplitter, Framing, LineSplitter
from tokenwire.engines.openai.answer import Answer
from tokenwire.journal.log import RunLog
from tokenwire.rpc.events import encode

TOKENS = 10_000
REPETITIONS = 9
# What a backlog brings in one read.
TOGETHER = 100
_TEXT = "0000012345678901"
_PAYLOAD = json.dumps(
    {
        "id": "cmpl-0123456789abcdef",
        "object": "text_completion",
        "created": 1750000000,
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "choices": [
            {
                "index": 0,
                "text": _TEXT,
                "logprobs": None,
                "finish_reason": None,
                "stop_reason": None,
                "prompt_token_ids": None,
                "token_ids": [7042],
            }
        ],
    },
    separators=(",", ":"),
).encode()
_EVENT = b"data: " + _PAYLOAD + b"\n\n"
_CHUNK = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# Makes what a stage works on, and returns what does one read: of one token, or of many.
Stage = Callable[[], Callable[[], object]]


class _Sink:
    """A connection to nowhere."""

    def write(self, data: bytes) -> None:
        """Takes the request."""

    def abort(self) -> None:
        """Has nothing to close."""


class _Unsplit(LineSplitter):
    """Finds nothing in what comes: events are a stage of their own."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Takes a part of the body."""
        return []


def _http() -> Callable[[], object]:
    exchange = Exchange(time.time, lambda one: None)
    exchange.connection_made(_Sink())  # type: ignore[arg-type]
    exchange.ask(b"", Framing("text/event-stream", _Unsplit), lambda payloads: False)
    exchange.data_received(_HEAD)
    return lambda: exchange.data_received(_CHUNK)


def _events() -> Callable[[], object]:
    splitter = EventSplitter()
    return lambda: splitter.feed(_EVENT)


def _dialect() -> Callable[[], object]:
    answer = Answer(1)
    return lambda: answer.read([_PAYLOAD], [])


def _piece() -> Piece:
    return Piece(channel=Channel(), text=_TEXT, token_ids=[7042], token_count=1)


def _writer() -> Callable[[], object]:
    writer, piece = Writer(RunLog(), lambda: 1, 1, None), _piece()
    return lambda: writer.write([piece], 1)


def _log() -> Callable[[], object]:
    log, channel = RunLog(), Channel()

    def append() -> None:
        log.append_text(channel, _TEXT, 1, [7042], 1)
        log.wake()

    return append


def _view() -> Callable[[], object]:
    log, channel = RunLog(), Channel()
    view = View(log)

    def follow() -> None:
        log.append_text(channel, _TEXT, 1, [7042], 1)
        log.wake()
        for _ in view.take():
            pass

    return follow


def _codec() -> Callable[[], object]:
    log = RunLog()
    log.append_text(Channel(), _TEXT, 1, [7042], 1)
    log.wake()
    (envelope,) = View(log).take()
    return lambda: encode(envelope)


def _cut_events() -> Callable[[], object]:
    # Reads of a backlog end anywhere.
    splitter, read = EventSplitter(), _EVENT * TOGETHER
    splitter.feed(_EVENT[:100])
    read = read[100:] + read[:100]
    return lambda: splitter.feed(read)


def _payloads() -> Callable[[], object]:
    answer, payloads = Answer(1), [_PAYLOAD] * TOGETHER
    answer.read([_PAYLOAD], [])
    return lambda: answer.read(payloads, [])


def _pieces() -> Callable[[], object]:
    pieces = Pieces(channel=Channel(), texts=[_TEXT] * TOGETHER, token_ids=[[7042]] * TOGETHER)
    writer = Writer(RunLog(), lambda: 1, 1, None)
    return lambda: writer.write([pieces], 1)


STAGES: dict[str, Stage] = {
    "HTTP framing (engines/exchange.py)": _http,
    "server-sent events (engines/framing.py)": _events,
    "the engine's JSON (engines/openai/answer.py)": _dialect,
    "writer and journal (dispatch/writer.py, journal/log.py)": _writer,
    "of these the journal (journal/log.py)": _log,
    "journal and view (journal/log.py, delivery/view.py)": _view,
    "protobuf (rpc/events.py)": _codec,
}
BACKLOG: dict[str, Stage] = {
    "a backlog's server-sent events (engines/framing.py)": _cut_events,
    "a backlog's JSON (engines/openai/answer.py)": _payloads,
    "a backlog into the journal (dispatch/writer.py, journal/log.py)": _pieces,
}


def cost_us(stage: Stage, together: int = 1, tokens: int = TOKENS, repetitions: int = REPETITIONS) -> float:
    """Returns the CPU microseconds of a stage per token, the best of some repetitions; `together` are one read."""
    best = float("inf")
    for _ in range(repetitions):
        once = stage()
        began = time.process_time_ns()
        for _ in range(0, tokens, together):
            once()
        best = min(best, (time.process_time_ns() - began) / 1000 / tokens)
    return best


async def _main() -> None:
    costs = {name: round(cost_us(stage), 2) for name, stage in STAGES.items()}
    costs |= {name: round(cost_us(stage, TOGETHER), 2) for name, stage in BACKLOG.items()}
    if "--json" in sys.argv[1:]:
        print(json.dumps(costs))
        return
    for name, cost in costs.items():
        print(f"{cost:6.2f} us  {name}")


if __name__ == "__main__":
    asyncio.run(_main())
