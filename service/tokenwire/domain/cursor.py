"""Positions in a run: channels and cursors."""

from enum import IntEnum
from typing import NamedTuple


class ChannelKind(IntEnum):
    """Which text of a choice a channel carries."""

    TEXT = 0
    REASONING = 1
    TOOL_CALL = 2


class Channel(NamedTuple):
    """One text of a run. Channels sort by choice, kind and index."""

    choice: int = 0
    kind: ChannelKind = ChannelKind.TEXT
    # Hides a tuple's own `index`, which nobody needs here; it is the contract's word.
    index: int = 0  # type: ignore[assignment]


class Cursor(NamedTuple):
    """What a reader has consumed of a run.

    `seq` is the highest number such that all events up to it are wholly consumed; `ahead` lists, sorted, the end offset
    in UTF-8 bytes of each channel that was consumed beyond it. `epoch` tells which writer the run had by then; None if
    its journal cannot be taken over, or the cursor was written by hand.
    """

    seq: int = 0
    ahead: tuple[tuple[Channel, int], ...] = ()
    epoch: int | None = None


START = Cursor()
