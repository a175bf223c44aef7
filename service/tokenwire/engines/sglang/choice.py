"""How far one choice of a stream is: what is new in each of its events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tokenwire.engines.failure import garbled
from tokenwire.engines.sglang.wire import Event, Meta

_T = TypeVar("_T")

# What an unfinished character is shown as.
REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class Step:
    """What one event adds to a choice: text, ids where they are told, and the places of its tokens in the answer."""

    text: str
    token_ids: Sequence[int]
    first: int
    end: int


class Written:
    """What a choice has written so far.

    SGLang repeats all of a choice in each event, or tells only what is new (`--incremental-streaming-output`). Text
    alone cannot say which of them it is ("aa" after "aa" may be both), but the number of ids beside the number of
    tokens can, as soon as there was a token before.

    Args:
        incremental: what the server said of itself; counts for events without ids only.
        unknown_character: the ids of U+FFFD as a character that the model means.

    Attributes:
        tokens: how many were told.
        ended: whether the choice has.
    """

    __slots__ = ("_held", "_ids", "_incremental", "_mode", "_text", "_unknown_character", "ended", "tokens")

    def __init__(self, *, incremental: bool, unknown_character: Sequence[int]) -> None:
        self.tokens = 0
        self.ended = False
        self._incremental = incremental
        self._unknown_character = list(unknown_character)
        # What the stream turned out to be; None as long as it cannot be told.
        self._mode: bool | None = None
        self._text = ""
        self._held = ""
        self._ids: list[int] = []

    def take(self, event: Event, meta: Meta) -> Step:
        """Returns what is new. Raises EngineError if the event does not go on from the ones before."""
        finish, seen, told = meta.finish_reason, self.tokens, event.output_ids
        aborted = finish is not None and finish.type == "abort"
        count = self._count(event, meta)
        if aborted and count <= seen:
            # Of a choice that is given up while it waits, SGLang repeats what it has told, in whatever form.
            return Step("", (), seen, seen)
        if count < seen:
            raise garbled()
        ids: list[int] = []
        if told is not None:
            if seen:
                self._decide(len(told), seen, count)
            elif len(told) < count:
                raise garbled()
            if self._mode is False and len(self._ids) == seen and told[seen - 1] != self._ids[-1]:
                raise garbled()
            ids = fresh(told, seen, count)
            self._ids += ids
        self.tokens = count
        text = self._new_text(event.text, seen)
        if finish is None:
            text = self._hold(text)
        elif not aborted and isinstance(finish.matched, str):
            # It was cut before a stop string, which is no place inside a character.
            pass
        elif text.endswith(REPLACEMENT) and not self._means_unknown(finish.matched):
            # The answer ended inside a character.
            text = text[:-1]
        return Step(text, ids, seen, count)

    def _count(self, event: Event, meta: Meta) -> int:
        if meta.completion_tokens is not None:
            return meta.completion_tokens
        # Only an event that tells nothing new may leave the number out.
        if event.output_ids or event.text:
            raise garbled()
        return self.tokens

    def _decide(self, told: int, seen: int, count: int) -> None:
        """Tells from the number of ids whether they are all or the new ones; they may run ahead of the count."""
        if told >= count:
            mode = False
        elif told == count - seen:
            mode = True
        else:
            raise garbled()
        if self._mode is None:
            self._mode = mode
        elif self._mode is not mode:
            raise garbled()

    def _new_text(self, text: str, seen: int) -> str:
        """Returns the text that is not yet told, of what the event says and what was held back."""
        incremental = self._incremental if self._mode is None else self._mode
        if incremental or not seen:
            new = self._held + text
        elif text.startswith(self._text):
            new = text[len(self._text) :]
        elif self._text.startswith(text):
            # A stop string was cut off after its beginning was told.
            return ""
        else:
            raise garbled()
        if not incremental or not seen:
            self._text = text
        self._held = ""
        return new

    def _hold(self, text: str) -> str:
        """Keeps the sign of an unfinished character back until it is known whether the character comes."""
        ready = text.rstrip(REPLACEMENT)
        self._held = text[len(ready) :]
        if self._held:
            self._text = self._text.removesuffix(self._held)
        return ready

    def _means_unknown(self, matched: object) -> bool:
        ids, sign = self._ids, self._unknown_character
        if isinstance(matched, int) and ids and ids[-1] == matched:
            ids = ids[:-1]
        return bool(sign) and ids[-len(sign) :] == sign


def fresh(told: Sequence[_T], seen: int, count: int) -> list[_T]:
    """Returns the entries of the tokens after `seen` up to `count`, of a list of all tokens or of the new ones.

    A list of all may run ahead of the count. Raises EngineError if the list can be neither.
    """
    if len(told) >= count:
        return list(told[seen:count])
    if len(told) == count - seen:
        return list(told)
    raise garbled()
