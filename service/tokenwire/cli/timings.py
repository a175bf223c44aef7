"""`--timings`: where the time of an answer went."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from tokenwire.cli.printing import DIM, NORMAL, Output
from tokenwire.v1.event_pb2 import End, Event

_TEXT = ("delta", "reasoning_delta", "tool_call_delta")
Figures = dict[str, float]


class Timed:
    """An output that tells times after the answer: on standard error, or with JSON as the last line of the output.

    Args:
        output: prints the answer.
        as_json: whether that is JSON.
        connection_ms: how long the connection took; None: it could not be made.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        output: Output,
        *,
        as_json: bool,
        connection_ms: float | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._as_json = as_json
        self._connection_ms = connection_ms
        self._monotonic = monotonic
        self._began = monotonic()
        self._first_text: float | None = None
        self._end: End | None = None

    def event(self, event: Event) -> None:
        """Shows the next event."""
        kind = event.WhichOneof("event")
        if kind in _TEXT and self._first_text is None:
            self._first_text = self._monotonic()
        elif kind == "end":
            self._end = event.end
        self._output.event(event)

    def note(self, text: str) -> None:
        """Tells people of something that happened on the way."""
        self._output.note(text)

    def close(self) -> None:
        """Shows what was held back, and then the times."""
        total = self._monotonic()
        self._output.close()
        client: Figures = {}
        if self._connection_ms is not None:
            client["connection_ms"] = round(self._connection_ms, 1)
        if self._first_text is not None:
            client["first_text_ms"] = round((self._first_text - self._began) * 1000, 1)
        client["total_ms"] = round((total - self._began) * 1000, 1)
        if self._as_json:
            figures = {} if self._end is None else {"server": _server(self._end), "tokens": _tokens(self._end)}
            print(json.dumps({"timings": figures | {"client": client}}), flush=True)
        elif self._end is not None or self._first_text is not None:
            _tell(list(_rows(self._end, client)))


def _server(end: End) -> Figures:
    timings = end.timings
    return {
        "queued_ms": timings.queued_ms,
        "scheduled_ms": timings.scheduled_ms,
        "first_token_ms": timings.first_token_ms,
        "completed_ms": timings.completed_ms,
        "time_to_first_token_ms": timings.time_to_first_token_ms,
        "mean_time_between_tokens_ms": round(timings.mean_time_between_tokens_ms, 2),
        "p99_time_between_tokens_ms": round(timings.p99_time_between_tokens_ms, 2),
        "tokens_per_second": round(timings.tokens_per_second, 2),
    }


def _tokens(end: End) -> Figures:
    usage = end.usage
    return {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "output": usage.output_tokens}


def _rows(end: End | None, client: Figures) -> Iterator[tuple[str, str]]:
    """Yields what people read: the server's times are counted from the run's start, the client's from the call's."""
    if end is not None:
        server = _server(end)
        yield "queued", f"{server['queued_ms']} ms"
        yield "scheduled", f"{server['scheduled_ms']} ms"
        yield "first token", f"{server['first_token_ms']} ms"
        yield "per token, mean", f"{server['mean_time_between_tokens_ms']} ms"
        yield "per token, p99", f"{server['p99_time_between_tokens_ms']} ms"
        yield "total", f"{server['completed_ms']} ms"
        yield "tokens per second", f"{server['tokens_per_second']}"
        for name, count in _tokens(end).items():
            yield f"{name} tokens", f"{count}"
    for key, name in (("connection_ms", "connection"), ("first_text_ms", "first text"), ("total_ms", "total")):
        if key in client:
            yield f"here: {name}", f"{client[key]} ms"


def _tell(rows: list[tuple[str, str]]) -> None:
    people = sys.stderr.isatty()
    width = max(len(name) for name, _ in rows)
    with suppress(OSError):
        for name, value in rows:
            line = f"{DIM}{name:<{width}}  {value:>12}{NORMAL}" if people else f"{name}\t{value}"
            print(line, file=sys.stderr)
        sys.stderr.flush()
