"""The sign of an unfinished character at the end of a chat's answer."""

import pytest

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece
from tokenwire.engines.sglang.unfinished import UnfinishedCharacters


def told(*texts: str, reason: FinishReason = FinishReason.LENGTH, kind: ChannelKind = ChannelKind.TEXT) -> list[str]:
    characters = UnfinishedCharacters()
    ready: list[Generated] = []
    for text in texts:
        ready += characters.take([Piece(channel=Channel(0, kind), text=text)])
    ready += characters.take([ChoiceDone(choice=0, finish_reason=reason)])
    assert type(ready[-1]) is ChoiceDone
    return [item.text for item in ready if isinstance(item, Piece)]


@pytest.mark.parametrize("kind", [ChannelKind.TEXT, ChannelKind.REASONING])
def test_a_sign_at_a_limit_is_not_told(kind: ChannelKind) -> None:
    assert "".join(told("a�", kind=kind)) == "a"
    assert "".join(told("a", "�", kind=kind)) == "a"
    # Those before it are bytes that are no text.
    assert "".join(told("a��", kind=kind)) == "a�"


def test_a_sign_that_text_follows_is_the_models() -> None:
    assert told("a�", "b", "�c�", "�d") == ["a", "�b", "�c", "��d"]


def test_a_sign_at_the_models_own_end_is_the_models() -> None:
    assert "".join(told("a�", reason=FinishReason.STOP)) == "a�"


def test_choices_and_channels_wait_for_themselves() -> None:
    characters = UnfinishedCharacters()
    first, second = Channel(0), Channel(1)
    assert len(characters.take([Piece(channel=first, text="�"), Piece(channel=second, text="�")])) == 2
    done = characters.take([ChoiceDone(choice=1, finish_reason=FinishReason.STOP)])
    assert [item.channel for item in done if isinstance(item, Piece)] == [second]
    assert characters.take([Piece(channel=first, text="b")])[0] == Piece(channel=first, text="�b")
