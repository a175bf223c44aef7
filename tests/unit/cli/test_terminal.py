"""Control codes are taken out of what a terminal shows."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.cli.terminal import Plain, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("line\n\ttab — 水 👩‍👩‍👧", "line\n\ttab — 水 👩‍👩‍👧"),
        ("a\x1b[1;31mb\x1b[0m", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\b", "ab"),
        ("a\x1bPdevice\x1b\\b", "ab"),
        ("a\x9b2Jb\x9dtitle\x9cc", "abc"),
        ("a\x1b(Bb\x1bcc", "abc"),
        ("a\x08\x00\x7f\rb", "ab"),
        # What was cut off does not swallow what follows.
        ("a\x1b[31\nb", "a\nb"),
        ("a\x1b]0;title\nb", "a\nb"),
        ("a\x1b[3é", "aé"),
        ("a\x1b\x1b[31mb", "ab"),
    ],
)
def test_only_text_is_shown(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(alphabet="ab\n\t é[]m;1\\\x07\x1b\x9b\x9d\x9c"), st.data())
def test_pieces_make_no_difference(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    piecewise = Plain()
    shown = piecewise.feed(text[:cut]) + piecewise.feed(text[cut:])
    assert shown == plain(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert shown.count("\n") == text.count("\n")
