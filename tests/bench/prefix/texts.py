"""Texts that no engine has ever read."""

import random

# Short and common: each is one token of the models that are used here, with the space before it.
WORDS = (  # noqa: SIM905
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education foot boy age policy music market sense nation plan college "
    "interest death experience effect use class control field development role effort rate heart drug show leader "
    "light voice wife police mind price report decision son view relationship town road arm difference value building "
    "action season society tax director position player record paper space ground form event official matter center "
    "couple site project activity star table need court oil situation cost industry figure street image phone data "
    "picture practice piece land product doctor wall patient worker news test movie north love support technology step "
    "baby computer type attention film tree source organization hair look window culture chance brother energy period "
    "course summer plant opportunity term letter condition choice rule daughter south husband floor campaign material "
    "population call economy hospital church risk fire future bank"
).split()  # fmt: skip


class Author:
    """Writes random texts.

    With 232 words to choose from, two texts begin with the same two words once in 53 824 times.

    Args:
        rng: chooses the words.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def text(self, words: int) -> str:
        """Returns a new text of so many words."""
        return " ".join(self._rng.choices(WORDS, k=words))

    def like(self, text: str, share: float) -> str:
        """Returns a text as long as another, in words, that begins as that does and then differs.

        Args:
            text: the other.
            share: how much of it is kept, in words, from 0 to 1. The next word is another one for certain.
        """
        words = text.split(" ")
        kept = round(len(words) * share)
        if kept == len(words):
            return text
        other = self._rng.choice([word for word in WORDS if word != words[kept]])
        return " ".join([*words[:kept], other, *self._rng.choices(WORDS, k=len(words) - kept - 1)])
