"""Texts in pieces, as a model may write them."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies


def cut(text: str, places: Sequence[int]) -> list[str]:
    """Returns the text in pieces that end at these places."""
    edges = [0, *sorted(place for place in places if place <= len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


PLACES = strategies.lists(strategies.integers(0, 400), max_size=40)


def texts(*parts: str) -> strategies.SearchStrategy[str]:
    """Returns texts that hold these parts, whole and broken, and other characters."""
    broken = [part[:size] for part in parts for size in (1, len(part) // 2, len(part) - 1)]
    one = strategies.sampled_from([*parts, *parts, *broken]) | strategies.text(max_size=4)
    return strategies.lists(one, max_size=12).map("".join)
