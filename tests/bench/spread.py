"""Median and range of what was measured several times, and how they are written: no finer than they were measured."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Several measurements of one figure.

    Attributes:
        median: the middle one.
        low: the smallest.
        high: the largest.
        count: how many there are.
    """

    median: float
    low: float
    high: float
    count: int

    def times(self, factor: float) -> "Spread":
        """Returns the same in another unit."""
        return Spread(median=self.median * factor, low=self.low * factor, high=self.high * factor, count=self.count)

    def text(self, decimals: int | None = None) -> str:
        """Returns the median, and the range if there is one, such as `29.6 [26.7-35.6]`.

        Args:
            decimals: shown at least; None: as many as the range allows.
        """
        places = max(self.decimals, decimals) if decimals is not None else self.decimals
        median, low, high = (number(value, places) for value in (self.median, self.low, self.high))
        if low == high:
            return median
        return f"{median} [{low}{' to ' if self.low < 0 else '-'}{high}]"

    @property
    def decimals(self) -> int:
        """The place of the last digit that means something: 1 is the tenths, 0 the units, -1 the tens.

        It is that of the range's first digit, but at least two digits of the median are shown, and at most three. Of
        a single measurement, whose range nobody knows, two are.
        """
        first = _magnitude(self.median or self.high)
        range_first = _magnitude(self.high - self.low) if self.high > self.low else first - 1 - (self.count > 1)
        return -min(max(range_first, first - 2), first - 1)


def spread(values: Iterable[float]) -> Spread | None:
    """Returns the spread of some values; None of none."""
    found = sorted(values)
    if not found:
        return None
    return Spread(median=statistics.median(found), low=found[0], high=found[-1], count=len(found))


def ratios(values: Mapping[int, float], to: Mapping[int, float]) -> dict[int, float]:
    """Returns the ratio of two figures, round by round, for the rounds that have both: what a machine does to one of
    them in a round it does to the other, too."""
    return {one: value / to[one] for one, value in values.items() if to.get(one)}


def number(value: float, decimals: int) -> str:
    """Returns a number rounded to a decimal place; a negative place rounds to tens and more."""
    rounded = round(value, decimals)
    # No minus before a zero.
    return f"{rounded + 0.0:,.{max(decimals, 0)}f}"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0
