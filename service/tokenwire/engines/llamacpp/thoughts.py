"""A model's reasoning out of its text, as it is written: what stands between two tags before the answer."""

from enum import Enum

from tokenwire.engines.llamacpp.calls import begun

OPEN = "<think>"
CLOSE = "</think>"


class Thoughts:
    """Reads one answer, in any cuts.

    White space around the tags belongs to neither text.

    Args:
        opened: whether the prompt ends with the opening tag.
    """

    def __init__(self, opened: bool) -> None:
        self._state = _State.OPENED if opened else _State.BEGINNING
        self._buffer = ""

    @property
    def thinking(self) -> bool:
        """Whether the reasoning has begun, and the answer has not."""
        return self._state in (_State.OPENED, _State.INSIDE, _State.CLOSED)

    @property
    def holding(self) -> bool:
        """Whether text is held back that may turn out to be a tag."""
        return bool(self._buffer)

    def feed(self, text: str) -> tuple[str, str]:
        """Returns reasoning and answer, as far as they are certain with this text."""
        self._buffer += text
        if self._state is _State.BEGINNING:
            self._begin()
        reasoning = self._think() if self._state in (_State.OPENED, _State.INSIDE) else ""
        if self._state is _State.CLOSED:
            self._buffer = self._buffer.lstrip()
            if self._buffer:
                self._state = _State.ANSWER
        if self._state is not _State.ANSWER:
            return reasoning, ""
        answer, self._buffer = self._buffer, ""
        return reasoning, answer

    def finish(self) -> tuple[str, str]:
        """Returns what was held back when the text ends."""
        text, self._buffer = self._buffer, ""
        return (text, "") if self.thinking else ("", text)

    def _begin(self) -> None:
        text = self._buffer.lstrip()
        if text.startswith(OPEN):
            self._state, self._buffer = _State.OPENED, text[len(OPEN) :]
        elif not OPEN.startswith(text):
            # The white space is the answer's.
            self._state = _State.ANSWER

    def _think(self) -> str:
        if self._state is _State.OPENED:
            self._buffer = self._buffer.lstrip()
            if not self._buffer:
                return ""
            self._state = _State.INSIDE
        reasoning, tag, after = self._buffer.partition(CLOSE)
        if tag:
            self._state, self._buffer = _State.CLOSED, after
            return reasoning.rstrip()
        keep = begun(self._buffer, CLOSE)
        # White space before the closing tag is not told, so it waits for what follows.
        reasoning = self._buffer[: len(self._buffer) - keep].rstrip()
        self._buffer = self._buffer[len(reasoning) :]
        return reasoning


class _State(Enum):
    """What was read: nothing but white space; the opening tag; reasoning; the closing tag; the answer."""

    BEGINNING = 0
    OPENED = 1
    INSIDE = 2
    CLOSED = 3
    ANSWER = 4
