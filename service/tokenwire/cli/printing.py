"""An answer on standard output: as text for a pipe, as text for people, or as JSON."""

import sys
from collections.abc import Callable
from typing import Protocol

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from tokenwire.cli.footer import footer
from tokenwire.cli.loading import LoadingLine
from tokenwire.cli.saying import say
from tokenwire.cli.terminal import Plain, on_terminal, plain
from tokenwire.v1.event_pb2 import Event

DIM, NORMAL = "\x1b[2m", "\x1b[0m"


class Output(Protocol):
    """Where the events of one answer go."""

    def event(self, event: Event) -> None:
        """Shows the next event."""
        ...

    def note(self, text: str) -> None:
        """Tells people of something that happened on the way."""
        ...

    def close(self) -> None:
        """Shows what was held back; called once, however the stream ended."""
        ...


def output_for(*, as_json: bool, quiet: bool, raw: bool, choices: int = 1) -> Output:
    """Returns what suits standard output. `choices` is how many are expected, if known."""
    if as_json:
        return JsonLines()
    return TerminalText(quiet=quiet, raw=raw, choices=choices) if on_terminal() else PipedText(quiet=quiet)


def json_line(message: Message) -> str:
    """Returns a message as one line of proto JSON with the names of the .proto file, without defaults."""
    line = MessageToJson(message, preserving_proto_field_name=True, indent=None, ensure_ascii=False)
    return plain(line) if on_terminal() else line


class JsonLines:
    """Prints each event as one line."""

    def event(self, event: Event) -> None:
        """Prints it."""
        _write(f"{json_line(event)}\n")

    def note(self, text: str) -> None:
        """Says nothing: programs read this."""

    def close(self) -> None:
        """Holds nothing back."""


class _Choices:
    """The first choice as it comes, the others afterwards, each as a whole."""

    def __init__(self, show: Callable[[int, str], None]) -> None:
        self._show = show
        self._held: dict[int, list[str]] = {}

    def add(self, choice: int, text: str) -> None:
        if choice == 0:
            self._show(0, text)
        else:
            self._held.setdefault(choice, []).append(text)

    def close(self) -> None:
        for choice in sorted(self._held):
            self._show(choice, "".join(self._held.pop(choice)))


class PipedText:
    """Prints the text alone, byte for byte; further choices each after a line break."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._choices = _Choices(self._show)
        self._loading = LoadingLine(quiet=quiet)
        self._written = False

    def event(self, event: Event) -> None:
        """Prints its text."""
        self._loading.event(event)
        if event.HasField("delta"):
            self._choices.add(event.delta.choice, event.delta.text)

    def note(self, text: str) -> None:
        """Says it on standard error."""
        self._loading.close()
        if not self._quiet:
            say(text)

    def close(self) -> None:
        """Prints the further choices."""
        self._loading.close()
        self._choices.close()

    def _show(self, choice: int, text: str) -> None:
        _write(f"\n{text}" if choice and self._written else text)
        self._written = True


class TerminalText:
    """Prints the text for people: reasoning dim, control codes taken out, figures below it."""

    def __init__(self, *, quiet: bool, raw: bool, choices: int) -> None:
        self._quiet = quiet
        self._raw = raw
        self._choices = _Choices(self._show)
        self._loading = LoadingLine(quiet=quiet)
        self._plain: dict[tuple[int, str], Plain] = {}
        self._column_zero = True
        self._dim = False
        self._run_id = ""
        self._footer = ""
        if choices > 1:
            self._header(0)

    def event(self, event: Event) -> None:
        """Prints its text."""
        self._loading.event(event)
        match event.WhichOneof("event"):
            case "start":
                self._run_id = event.start.run_id
            case "delta":
                self._choices.add(event.delta.choice, self._safe(event.delta.choice, "text", event.delta.text))
            case "reasoning_delta" if event.reasoning_delta.choice == 0 and not self._quiet:
                self._print(self._safe(0, "reasoning", event.reasoning_delta.text), dim=True)
            case "end":
                self._footer = footer(event.end, self._run_id)

    def note(self, text: str) -> None:
        """Says it on a line of its own."""
        self._loading.close()
        if not self._quiet:
            if not self._column_zero:
                self._print("\n")
            say(text)

    def close(self) -> None:
        """Prints the further choices, and the figures once the run has ended."""
        self._loading.close()
        self._choices.close()
        if not self._column_zero:
            self._print("\n")
        if self._footer and not self._quiet and sys.stderr.isatty():
            print(f"{DIM}{plain(self._footer)}{NORMAL}", file=sys.stderr, flush=True)

    def _show(self, choice: int, text: str) -> None:
        if choice:
            self._header(choice)
        self._print(text)

    def _header(self, choice: int) -> None:
        before = "" if self._column_zero else "\n"
        _write(f"{before}{DIM}--- choice {choice}{NORMAL}\n")
        self._column_zero = True

    def _print(self, text: str, *, dim: bool = False) -> None:
        if not text:
            return
        if dim != self._dim and not self._column_zero:
            text = f"\n{text}"
        self._dim = dim
        self._column_zero = text.endswith("\n")
        _write(f"{DIM}{text}{NORMAL}" if dim else text)

    def _safe(self, choice: int, kind: str, text: str) -> str:
        return text if self._raw else self._plain.setdefault((choice, kind), Plain()).feed(text)


def _write(text: str) -> None:
    # Bytes, so that neither the locale nor the platform's line breaks change what the model wrote.
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
