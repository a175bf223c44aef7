"""The sign of an unfinished character at the end of an answer."""

import pytest

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece
from tokenwire.engines.vllm.unfinished import UnfinishedCharacters

END = 2
ONE, SEVERAL = [7], [5, 6]


def told(
    sign: list[int],
    *pieces: tuple[str, list[int]],
    matched: str | int | None = None,
    kind: ChannelKind = ChannelKind.TEXT,
) -> str:
    characters = UnfinishedCharacters(sign)
    ready: list[Generated] = []
    for text, ids in pieces:
        piece = Piece(channel=Channel(0, kind), text=text, token_ids=ids, token_count=len(ids))
        ready += characters.take([piece])
    ready += characters.take([ChoiceDone(choice=0, finish_reason=FinishReason.STOP, matched_stop=matched)])
    assert type(ready[-1]) is ChoiceDone
    counted = [item for item in ready if isinstance(item, Piece)]
    assert [one for item in counted for one in item.token_ids] == [one for _, ids in pieces for one in ids]
    assert all(item.text or item.token_ids for item in counted)
    return "".join(item.text for item in counted)


@pytest.mark.parametrize("sign", [ONE, SEVERAL, []])
@pytest.mark.parametrize("kind", [ChannelKind.TEXT, ChannelKind.REASONING])
def test_signs_at_the_end_are_not_told(sign: list[int], kind: ChannelKind) -> None:
    assert told(sign, ("a", [1]), (" �", [3]), kind=kind) == "a "
    assert told(sign, ("a", [1]), ("", [3]), ("��", []), kind=kind) == "a"
    assert told(sign, ("�", [3]), ("", [END]), matched=END) == ""


@pytest.mark.parametrize("sign", [ONE, SEVERAL])
def test_the_character_of_that_name_is_told(sign: list[int]) -> None:
    assert told(sign, ("a�", [1, *sign])) == "a�"
    assert told(sign, ("a", [1]), *[("", [one]) for one in sign], ("�", [])) == "a�"
    # The last token ended the choice, and has no text.
    assert told(sign, ("a�", [1, *sign]), ("", [END])) == "a�"
    assert told(sign, ("a��", [1, *sign, *sign]), ("", [END])) == "a��"
    # One is meant, the bytes before it are no text.
    assert told(sign, ("a��", [1, 3, *sign])) == "a�"


def test_a_sign_that_text_follows_stays() -> None:
    assert told(ONE, ("a�", [3]), ("b", [1]), ("�c�", [4]), ("�d", [1])) == "a�b�c��d"
    assert told(ONE, ("a�", [3]), matched="stop") == "a�"


def test_choices_wait_for_themselves() -> None:
    characters = UnfinishedCharacters(ONE)
    first, second = Channel(0), Channel(1)
    held = [Piece(channel=first, text="�", token_ids=[3]), Piece(channel=second, text="�", token_ids=ONE)]
    assert len(characters.take(held)) == 2
    ends: list[Generated] = [ChoiceDone(choice=one, finish_reason=FinishReason.LENGTH) for one in (0, 1)]
    assert characters.take(ends) == [ends[0], Piece(channel=second, text="�", token_count=0), ends[1]]
