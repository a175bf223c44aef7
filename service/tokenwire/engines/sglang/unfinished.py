"""What a chat's stream shows of a character that its limit has cut off: a sign that the model did not mean."""

from collections.abc import Sequence

from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece
from tokenwire.engines.sglang.choice import REPLACEMENT


class UnfinishedCharacters:
    """Takes the sign away.

    SGLang shows an unfinished character only at the end of an answer, as U+FFFD. Of a chat it tells no ids, by which
    it could be told from the character of that name; so a sign at a limit is taken for an unfinished character.
    """

    def __init__(self) -> None:
        self._held: dict[Channel, str] = {}

    def take(self, told: Sequence[Generated]) -> list[Generated]:
        """Returns what is to be told now; a sign at the end of a channel's text waits for what comes after it."""
        ready: list[Generated] = []
        for item in told:
            if isinstance(item, Piece):
                held = self._held.pop(item.channel, "")
                text = held + item.text
                item.text = text.rstrip(REPLACEMENT) if held or text.endswith(REPLACEMENT) else text
                if len(item.text) < len(text):
                    self._held[item.channel] = text[len(item.text) :]
            elif isinstance(item, ChoiceDone):
                ready += self._rest(item)
            ready.append(item)
        return ready

    def _rest(self, done: ChoiceDone) -> list[Generated]:
        cut = 1 if done.finish_reason is FinishReason.LENGTH else 0
        rest: list[Generated] = []
        for channel in [channel for channel in self._held if channel.choice == done.choice]:
            held = self._held.pop(channel)
            if len(held) > cut:
                rest.append(Piece(channel=channel, text=held[: len(held) - cut], token_count=0))
        return rest
