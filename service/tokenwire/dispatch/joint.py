"""Stop strings that begin before a continued answer's new text and end in it."""

from collections.abc import Sequence

from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece


class Joint:
    """Watches the first characters of a choice that another engine goes on with.

    An engine looks for stop strings in what it writes itself. So as long as one that has begun in the old text may be
    completed by the new text, the new text waits here; each stop string that could be is known when the new engine
    begins, by its rest. What of a stop string was out before the engine was lost stays out; with `include_stop` that
    is as it should be, without it the beginning of the stop string is left at the end of the text.

    Args:
        old: the choice's text in the journal; its end is enough.
        stops: the request's stop strings.
        include_stop: whether a stop string belongs to the text.
        pending: text of tokens that are known and that the new engine takes for written, but that is not in the journal
            yet; comes before all that it writes.
        min_tokens: new tokens before which no stop string counts.
    """

    def __init__(
        self, old: str, stops: Sequence[str], *, include_stop: bool = False, pending: str = "", min_tokens: int = 0
    ) -> None:
        before = old + pending
        # The rest of each stop string that may be going on, and the stop string.
        self._rests = [
            (stop[begun:], stop) for stop in stops for begun in range(1, len(stop)) if before.endswith(stop[:begun])
        ]
        self._include_stop = include_stop
        self._pending = pending
        self._min_tokens = min_tokens
        self._text = ""
        self._tokens = 0
        self._held: list[Piece] = []

    @property
    def is_open(self) -> bool:
        """Whether a stop string may be going on, or text waits to be written first."""
        return bool(self._rests or self._pending or self._held)

    def take(self, item: Piece | ChoiceDone) -> list[Generated]:
        """Returns what is to be written now, of what the new engine tells; its end may become a stop string's."""
        full = self._text
        if isinstance(item, Piece):
            self._held.append(item)
            self._text += item.text
            self._tokens += len(item.token_ids) if item.token_count is None else item.token_count
            full = self._text
        elif isinstance(item.matched_stop, str) and not self._include_stop:
            # The engine's own stop string may hide the end of one that was completed before it.
            full += item.matched_stop
        hit = self._hit(full)
        if hit is not None:
            return self._ended(*hit)
        if isinstance(item, ChoiceDone):
            return [*self._released(), item]
        self._rests = [(rest, stop) for rest, stop in self._rests if rest.startswith(full)]
        return [] if self._rests else self._released()

    def _hit(self, full: str) -> tuple[str, str] | None:
        """Returns the stop string that is completed first, with its rest; of several the one that began first."""
        hits = [(rest, stop) for rest, stop in self._rests if full.startswith(rest)]
        if not hits:
            return None
        if self._tokens < self._min_tokens:
            self._rests = [one for one in self._rests if one not in hits]
            return None
        return min(hits, key=lambda one: (len(one[0]), -len(one[1])))

    def _ended(self, rest: str, stop: str) -> list[Generated]:
        begun = len(stop) - len(rest)
        text = self._pending + rest if self._include_stop else self._pending[: max(0, len(self._pending) - begun)]
        last = Piece(channel=self._held[0].channel if self._held else Channel(), text=text, token_count=0)
        ids: list[int] = []
        length = counted = 0
        for piece in self._held:
            if length >= len(rest):
                break
            length += len(piece.text)
            ids += piece.token_ids
            counted += len(piece.token_ids) if piece.token_count is None else piece.token_count
            last.logprobs += piece.logprobs
        last.token_ids, last.token_count = ids, counted
        self._clear()
        done = ChoiceDone(choice=last.channel.choice, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=stop)
        return [last, done] if text or counted else [done]

    def _released(self) -> list[Generated]:
        released: list[Generated] = [*self._held]
        if self._pending:
            channel = self._held[0].channel if self._held else Channel()
            released.insert(0, Piece(channel=channel, text=self._pending, token_count=0))
        self._clear()
        return released

    def _clear(self) -> None:
        self._rests = []
        self._held = []
        self._pending = ""


def stop_in(text: str, stops: Sequence[str], after: int) -> tuple[int, str] | None:
    """Returns the stop string that ends first behind so many characters of a text, and where; None if there is none.

    Of several that end there it is the one that begins first.
    """
    found: list[tuple[int, str]] = []
    for stop in stops:
        start = text.find(stop, max(0, after + 1 - len(stop))) if stop else -1
        if start >= 0:
            found.append((start + len(stop), stop))
    return min(found, key=lambda one: (one[0], -len(one[1])), default=None)
