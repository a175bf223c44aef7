"""JSON that comes as the text of a field."""

from typing import Any

import msgspec

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.engines.failure import NOT_JSON


def json_object(text: str, field: str) -> dict[str, Any]:
    """Returns the JSON object that a text field holds; raises InvalidRequestError, naming it, if it holds none."""
    try:
        value = msgspec.json.decode(text)
    except NOT_JSON as error:
        raise InvalidRequestError(field, "is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(field, "is not a JSON object")
    return value
