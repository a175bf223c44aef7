"""What is shown of a character that the end of an answer has cut off: a sign that the model did not mean."""

from collections.abc import Sequence

from tokenwire.domain.cursor import Channel
from tokenwire.domain.generation import ChoiceDone, Generated, Piece

_SIGN = "\ufffd"


class UnfinishedCharacters:
    """Takes the signs away at the end of each choice.

    vLLM's Rust front end shows U+FFFD there, as many as the unfinished character has parts. The tokens tell whether it
    is the character of that name. In the middle of a text the sign stands for bytes that are no character, and stays.

    Args:
        unknown_character: the ids of U+FFFD as a character; empty if they are not known.
    """

    def __init__(self, unknown_character: Sequence[int]) -> None:
        self._unknown_character = list(unknown_character)
        self._held: dict[Channel, str] = {}
        # The last tokens of each choice.
        self._ids: dict[int, list[int]] = {}

    def take(self, told: Sequence[Generated]) -> list[Generated]:
        """Returns what is to be told now; a sign at the end of a channel's text waits for what comes after it."""
        ready: list[Generated] = []
        for item in told:
            if isinstance(item, Piece):
                if self._piece(item):
                    ready.append(item)
                continue
            if isinstance(item, ChoiceDone):
                ready += self._rest(item)
            ready.append(item)
        return ready

    def _piece(self, piece: Piece) -> bool:
        """Cuts a piece and tells whether something is left of it."""
        if piece.text:
            text = self._held.pop(piece.channel, "") + piece.text
            piece.text = text.rstrip(_SIGN)
            if len(piece.text) < len(text):
                self._held[piece.channel] = text[len(piece.text) :]
        if piece.token_ids and self._unknown_character:
            kept = self._ids.get(piece.channel.choice, []) + list(piece.token_ids)
            self._ids[piece.channel.choice] = kept
            # One more than the signs that wait: the model's own end may be the last.
            del kept[: -len(self._unknown_character) * (len(self._held.get(piece.channel, "")) + 1) - 1]
        return bool(piece.text or piece.token_ids or piece.token_count or piece.logprobs)

    def _rest(self, done: ChoiceDone) -> list[Generated]:
        rest: list[Generated] = []
        for channel in [channel for channel in self._held if channel.choice == done.choice]:
            held = self._held.pop(channel)
            # Before a stop string is no place inside a character.
            meant = len(held) if isinstance(done.matched_stop, str) else self._meant(done)
            if meant:
                rest.append(Piece(channel=channel, text=held[:meant], token_count=0))
        return rest

    def _meant(self, done: ChoiceDone) -> int:
        """Returns how many signs at the end the model wrote as such."""
        ids, sign = list(self._ids.get(done.choice, ())), self._unknown_character
        if sign and ids[-len(sign) :] != sign:
            # The token that ended the choice has no text.
            ids = ids[:-1]
        meant = 0
        while sign and ids[-len(sign) :] == sign:
            del ids[-len(sign) :]
            meant += 1
        return meant
