"""Which tokens of an answer another engine can go on from."""

from collections.abc import Sequence

import pytest

from tokenwire.dispatch.answer_ids import CUT_MAX, AnswerIds, known_ids
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Token
from tokenwire.journal.log import UNKNOWN_ID

# Ids below 256 are bytes; these are words, and the last is a special token.
WORDS = {300: " the", 301: " end", 302: "END", 303: "<|x|>"}


class Bytes:
    """A tokenizer; `strips`: leaves out a space at the beginning of a text, as some do."""

    def __init__(self, strips: bool = False) -> None:
        self.strips = strips
        self.asked = 0

    async def prompt(self, submission: Submission) -> Prompt:
        """Is not asked for."""
        raise NotImplementedError

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Is not asked for."""
        raise NotImplementedError

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        """Is not asked for."""
        raise NotImplementedError

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens."""
        self.asked += 1
        data = b"".join(WORDS[one].encode() if one in WORDS else bytes([one]) for one in token_ids)
        text = data.decode("utf-8", "replace")
        return text.removeprefix(" ") if self.strips else text


EURO = tuple("€".encode())
CASES: dict[str, tuple[tuple[int, ...], str, tuple[str, ...], AnswerIds | None]] = {
    "as told": ((300, 301), " the end", (), AnswerIds(ids=(300, 301))),
    "nothing": ((), "", (), AnswerIds(ids=())),
    "a character that is not whole": ((300, *EURO[:2]), " the", (), AnswerIds(ids=(300,), again=2)),
    "a character that is whole": ((300, *EURO), " the€", (), AnswerIds(ids=(300, *EURO))),
    "held back for a stop string": ((300, 302), " the", ("ENDE",), AnswerIds(ids=(300, 302), pending="END")),
    "held back, and a part of a character": (
        (300, 302, EURO[0]),
        " the",
        ("ENDE",),
        AnswerIds(ids=(300, 302), again=1, pending="END"),
    ),
    "a stop string that is whole": ((300, 302), " the", ("END",), AnswerIds(ids=(300, 302), pending="END")),
    "a special token behind it": ((300, 303), " the", ("a",), AnswerIds(ids=(300,), again=1)),
    "text ahead without a stop string": ((300, 301), " the", (), AnswerIds(ids=(300,), again=1)),
    "a part of a token's text": ((300, 301), " the e", (), None),
    "other text": ((300,), " a", (), None),
    "a special token in the middle": ((300, 303, 301), " the end", (), None),
    "unknown tokens": ((300, UNKNOWN_ID), " the", (), None),
    "far too much": ((300, *[65] * (CUT_MAX + 5)), " the", (), None),
}


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize(("ids", "text", "stops", "known"), CASES.values(), ids=CASES.keys())
@pytest.mark.asyncio
async def test_the_tokens_whose_text_is_the_answer(
    ids: tuple[int, ...], text: str, stops: tuple[str, ...], known: AnswerIds | None, strips: bool
) -> None:
    assert await known_ids(ids, text, (72, 105), Bytes(strips), stops) == known


@pytest.mark.asyncio
async def test_one_question_is_enough_where_nothing_runs_ahead() -> None:
    tokenizer = Bytes()
    await known_ids((300,) * 1000, " the" * 1000, (72,), tokenizer, ())
    assert tokenizer.asked == 1
