"""Words as labels of metrics: so few of them that no client can make series without end."""

from collections.abc import Callable

from tokenwire.telemetry.names import OTHER

MAX_WORDS = 100


class Words:
    """Lets words through that are known, and no more of them than MAX_WORDS; any other one becomes OTHER.

    Args:
        knows: whether a word is one of ours; is asked once for each that is.
    """

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._seen: set[str] = set()

    @property
    def seen(self) -> tuple[str, ...]:
        """The words that were let through so far."""
        return tuple(self._seen)

    def label(self, word: str) -> str:
        """Returns the word, or OTHER."""
        if word in self._seen:
            return word
        if len(self._seen) < MAX_WORDS and self._knows(word):
            self._seen.add(word)
            return word
        return OTHER


def is_reason(word: str) -> bool:
    """Whether a word looks like a reason of ours: UPPER_SNAKE_CASE."""
    return len(word) <= 40 and word.isascii() and word.isupper() and word.replace("_", "").isalnum()
