"""JSON that comes as the text of a field."""

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.engines.schemas import json_object


@pytest.mark.parametrize("text", ["", "x", "[]", "7", "null", "{", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        json_object(text, "field")


def test_an_object_is_returned() -> None:
    assert json_object('{"type": "object"}', "field") == {"type": "object"}
