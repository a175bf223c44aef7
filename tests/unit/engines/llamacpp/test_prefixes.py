"""Token ids of prompts that go on from earlier ones, with a tokenizer of one's own."""

import re

import pytest
from hypothesis import given, strategies

from tokenwire.engines.llamacpp.prefixes import MAX_TEXTS, Means, Pieces, Prefixes

# A token is a special one, a word with the space before it, or a byte.
_TOKENS = re.compile(rb"<s>|</s>| ?[a-z]+|.", re.DOTALL)
SPECIAL = {b"<s>": 1, b"</s>": 2}


class Reader:
    """Reads text as tokens, and notes what it was asked.

    `greedy`: white space before an end goes with it, as it is in a cut, but is lost in a whole text.
    """

    def __init__(self, *, lead: bool = False, greedy: bool = False, lossy: bool = False) -> None:
        self.wholes: list[str] = []
        self.rests: list[str] = []
        self.asked: list[str] = []
        self._lead = lead
        self._greedy = greedy
        self._lossy = lossy
        self._ids: dict[bytes, int] = dict(SPECIAL)

    def prefixes(self, **options: int) -> Prefixes:
        return Prefixes(Means(whole=self.whole, rest=self.rest, special=self.special), **options)

    async def whole(self, text: str) -> Pieces:
        self.wholes.append(text)
        return (((0, b"<bos>"),) if self._lead else ()) + self.read(text, whole=True)

    async def rest(self, text: str) -> Pieces:
        self.rests.append(text)
        return self.read(text, whole=False)

    async def special(self, token_id: int, text: str) -> bool:
        self.asked.append(text)
        return text.encode() in SPECIAL

    def read(self, text: str, *, whole: bool) -> Pieces:
        pieces = [match[0] for match in _TOKENS.finditer(text.encode())]
        if self._lossy:
            pieces = [piece.strip() or piece for piece in pieces]
        ids = [(self._ids.setdefault(piece, len(self._ids) + 10), piece) for piece in pieces]
        if self._greedy and whole:
            # The token after an end is another one inside of a text.
            ids = [(one + 1000 * (at > 0 and ids[at - 1][1] == b"</s>"), piece) for at, (one, piece) in enumerate(ids)]
        return tuple(ids)

    def expected(self, text: str) -> tuple[int, ...]:
        lead = (0,) if self._lead else ()
        return lead + tuple(one for one, _ in self.read(text, whole=True))


def conversation(turns: int) -> str:
    return "".join(f"<s>user says word{'s' * turn}</s>\n" for turn in range(turns)) + "<s>bot\n"


TEXTS = strategies.lists(
    strategies.lists(strategies.sampled_from(["<s>", "</s>", "\n", " a", "bc", "🦜", "<", "é"]), max_size=12).map(
        "".join
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.asyncio
@given(TEXTS)
async def test_whatever_came_before_ids_are_those_of_the_whole_text(texts: list[str]) -> None:
    for lead in (False, True):
        reader = Reader(lead=lead)
        prefixes = reader.prefixes()
        grown = ""
        for text in texts:
            grown += text
            for one in (text, grown):
                assert await prefixes.ids(one) == reader.expected(one)


@pytest.mark.asyncio
async def test_of_a_conversation_that_grows_only_what_is_new_is_read() -> None:
    reader = Reader()
    prefixes = reader.prefixes()
    for turns in range(1, 6):
        assert await prefixes.ids(conversation(turns)) == reader.expected(conversation(turns))
    # The first turn, and once more when the first cut was tried.
    assert reader.wholes == [conversation(1), conversation(2)]
    assert reader.rests[-1] == conversation(5).removeprefix(conversation(4).removesuffix("<s>bot\n"))


@pytest.mark.asyncio
async def test_the_same_prompt_is_not_read_again() -> None:
    reader = Reader()
    prefixes = reader.prefixes()
    assert await prefixes.ids(conversation(3)) == await prefixes.ids(conversation(3))
    assert (len(reader.wholes), reader.rests) == (1, [])


@pytest.mark.asyncio
async def test_a_cut_that_changes_the_tokens_is_tried_once_and_never_made() -> None:
    reader = Reader(greedy=True)
    prefixes = reader.prefixes()
    texts = [f"<s>a</s>{tail}</s> c" for tail in (" b", " bb", " bbb", " bbbb")]
    for text in texts:
        assert await prefixes.ids(text) == reader.expected(text)
    assert reader.rests == ["</s> bb</s> c"]
    assert reader.wholes == texts


@pytest.mark.asyncio
async def test_a_tokenizer_that_loses_bytes_is_not_cut() -> None:
    reader = Reader(lossy=True)
    prefixes = reader.prefixes()
    for turns in range(1, 4):
        await prefixes.ids(conversation(turns))
    assert (len(reader.wholes), reader.rests, prefixes.size) == (3, [], 0)


@pytest.mark.asyncio
async def test_only_what_may_be_special_is_asked_about_and_only_once() -> None:
    reader = Reader()
    prefixes = reader.prefixes()
    for turns in range(1, 4):
        await prefixes.ids(conversation(turns))
    assert sorted(reader.asked) == ["</s>", "<s>"]


@pytest.mark.asyncio
async def test_what_is_kept_is_bounded_in_bytes_and_in_number() -> None:
    reader = Reader()
    prefixes = reader.prefixes(max_bytes=20_000)
    for number in range(200):
        await prefixes.ids(f"<s>{'a' * number}</s>" + "b" * 1000)
        assert prefixes.size <= 20_000
    assert prefixes.size > 10_000
    many = Reader().prefixes()
    for number in range(MAX_TEXTS + 50):
        await many.ids(f"<s>{number}</s>x")
    assert len(many._kept) == MAX_TEXTS


@pytest.mark.asyncio
async def test_a_text_larger_than_the_bound_is_read_and_not_kept() -> None:
    reader = Reader()
    prefixes = reader.prefixes(max_bytes=100)
    assert await prefixes.ids(conversation(3)) == reader.expected(conversation(3))
    assert prefixes.size == 0


@pytest.mark.asyncio
async def test_the_beginning_that_two_conversations_share_stays_when_one_grows() -> None:
    reader = Reader()
    prefixes = reader.prefixes()
    system = "<s>system" + " be kind" * 50 + "</s>\n"
    for text in ("<s>user a</s>\n<s>bot\n", "<s>user b</s>\n<s>bot\n", "<s>user a</s>\n<s>bot\nA</s>\n<s>bot\n"):
        await prefixes.ids(system + text)
        if text.startswith("<s>user b"):
            reader.rests.clear()
    assert reader.rests == ["<s>bot\nA</s>\n<s>bot\n"]
    await prefixes.ids(system + "<s>user c</s>\n<s>bot\n")
    assert reader.rests[1:] == ["<s>user c</s>\n<s>bot\n"]
