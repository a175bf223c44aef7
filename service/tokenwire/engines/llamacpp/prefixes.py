"""Token ids of long prompts, by the beginning that they share with earlier ones.

A text can be cut directly before a special token, and its parts can be read as tokens one by one: but some tokenizers
take the white space beside a special token away, so a cut is trusted only after it was tried.
"""

from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

# Text and ids that are kept, in bytes; and how many texts, since all are looked at.
MAX_BYTES = 8 << 20
MAX_TEXTS = 256

Pieces = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Means:
    """How to read text as tokens, each with its bytes.

    Attributes:
        whole: reads a whole prompt.
        rest: reads what follows a cut.
        special: tells whether the token with this id and text is special.
    """

    whole: Callable[[str], Awaitable[Pieces]]
    rest: Callable[[str], Awaitable[Pieces]]
    special: Callable[[int, str], Awaitable[bool]]


class Prefixes:
    """Reads prompts as tokens, and of a prompt that goes on from an earlier one only what is new.

    Args:
        means: how to read text.
        max_bytes: how much is kept; the oldest goes first.
    """

    def __init__(self, means: Means, max_bytes: int = MAX_BYTES) -> None:
        self._means = means
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._bytes = 0
        # Whether a cut before a token gives what reading the whole gives.
        self._trusted: dict[int, bool] = {}
        self._special: dict[int, bool] = {}

    @property
    def size(self) -> int:
        """Bytes that are kept, roughly."""
        return self._bytes

    async def ids(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a whole prompt."""
        data = text.encode()
        known = self._kept.get(data)
        if known is not None:
            self._kept.move_to_end(data)
            return tuple(known.ids)
        beginning = self._beginning(data)
        if beginning is None:
            return await self._whole(text, data)
        kept, cut = beginning
        if kept.text in self._kept:
            self._kept.move_to_end(kept.text)
        rest = await self._means.rest(data[cut.offset :].decode())
        ids = array("I", kept.ids[: cut.index])
        ids.extend(one for one, _ in rest)
        if cut.token_id not in self._trusted:
            whole = await self._means.whole(text)
            self._trusted[cut.token_id] = [one for one, _ in whole] == list(ids)
            if not self._trusted[cut.token_id]:
                return tuple(one for one, _ in whole)
        cuts = [one for one in kept.cuts if one.offset < cut.offset]
        cuts += await self._cuts(data[cut.offset :], rest, cut.offset, cut.index)
        if cut is kept.cuts[-1]:
            # The same conversation, grown.
            self._forget(kept)
        self._keep(_Kept(data, ids, tuple(cuts)))
        return tuple(ids)

    async def _whole(self, text: str, data: bytes) -> tuple[int, ...]:
        pieces = await self._means.whole(text)
        ids = array("I", (one for one, _ in pieces))
        # A token of the beginning may stand before the text.
        lead = 1 if pieces and not data.startswith(pieces[0][1]) else 0
        self._keep(_Kept(data, ids, tuple(await self._cuts(data, pieces[lead:], 0, lead))))
        return tuple(ids)

    def _beginning(self, data: bytes) -> "tuple[_Kept, _Cut] | None":
        """Returns the longest known beginning of a text that can be cut off it."""
        best: tuple[_Kept, _Cut] | None = None
        for kept in self._kept.values():
            shared = _shared(kept.text, data)
            for cut in reversed(kept.cuts):
                if best is not None and cut.offset <= best[1].offset:
                    break
                if cut.end <= shared and self._trusted.get(cut.token_id, True):
                    best = kept, cut
                    break
        return best

    async def _cuts(self, data: bytes, pieces: Pieces, offset: int, index: int) -> "list[_Cut]":
        """Returns where the text can be cut; nowhere if the tokens' bytes are not the text's own."""
        if b"".join(piece for _, piece in pieces) != data:
            return []
        cuts: list[_Cut] = []
        for number, (token_id, piece) in enumerate(pieces):
            if offset and await self._is_special(token_id, piece):
                cuts.append(_Cut(offset, index + number, token_id, offset + len(piece)))
            offset += len(piece)
        return cuts

    async def _is_special(self, token_id: int, piece: bytes) -> bool:
        known = self._special.get(token_id)
        if known is None:
            # Spares asking for each word.
            framed = len(piece) > 2 and piece[:1] in b"<[" and piece[-1:] in b">]"
            known = framed and await self._means.special(token_id, piece.decode("utf-8", "replace"))
            self._special[token_id] = known
        return known

    def _keep(self, kept: "_Kept") -> None:
        if not kept.cuts:
            return
        self._forget(kept)
        self._kept[kept.text] = kept
        self._bytes += kept.size
        while self._bytes > self._max_bytes or len(self._kept) > MAX_TEXTS:
            self._forget(next(iter(self._kept.values())))

    def _forget(self, kept: "_Kept") -> None:
        gone = self._kept.pop(kept.text, None)
        if gone is not None:
            self._bytes -= gone.size


@dataclass(frozen=True, slots=True)
class _Cut:
    """A place before a special token: byte and token offset, the token's id, and the byte where it ends."""

    offset: int
    index: int
    token_id: int
    end: int


@dataclass(frozen=True, slots=True)
class _Kept:
    text: bytes
    ids: "array[int]"
    cuts: tuple[_Cut, ...]

    @property
    def size(self) -> int:
        return len(self.text) + 4 * len(self.ids) + 120 * len(self.cuts) + 400


def _shared(one: bytes, other: bytes) -> int:
    """Returns how many bytes two texts share at their beginnings."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
