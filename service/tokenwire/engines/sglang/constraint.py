"""What an answer must look like, in SGLang's terms."""

from typing import Any

import msgspec

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Constraint
from tokenwire.engines.schemas import json_object

ANY_OBJECT = '{"type":"object"}'

_SPECIAL = frozenset(r"\.^$*+?{}[]()|/-")


def native(constraint: Constraint) -> dict[str, Any]:
    """Returns the sampling parameter of `/generate`, which takes JSON as text."""
    if constraint.json_schema is not None:
        return {"json_schema": constraint.json_schema}
    if constraint.structural_tag is not None:
        return {"structural_tag": constraint.structural_tag}
    if constraint.json_object:
        return {"json_schema": ANY_OBJECT}
    return _of_text(constraint)


def of_chat(constraint: Constraint) -> dict[str, Any]:
    """Returns the field of the chat endpoint, which takes JSON as such."""
    if constraint.json_schema is not None:
        schema = {"name": "answer", "schema": msgspec.Raw(constraint.json_schema.encode()), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if constraint.structural_tag is not None:
        return {"response_format": msgspec.Raw(constraint.structural_tag.encode())}
    if constraint.json_object:
        return {"response_format": {"type": "json_object"}}
    return _of_text(constraint)


def check_constraint(constraint: Constraint) -> None:
    """Refuses JSON text that is no JSON object, or a structural tag that is none."""
    if constraint.json_schema is not None:
        json_object(constraint.json_schema, "constraint.json_schema")
    if constraint.structural_tag is not None:
        tag = json_object(constraint.structural_tag, "constraint.structural_tag")
        if tag.get("type") != "structural_tag":
            raise InvalidRequestError("constraint.structural_tag", 'must be an object of the type "structural_tag"')


def _of_text(constraint: Constraint) -> dict[str, Any]:
    if constraint.regex is not None:
        return {"regex": constraint.regex}
    if constraint.grammar is not None:
        return {"ebnf": constraint.grammar}
    if constraint.choice:
        return {"regex": f"({'|'.join(map(_literal, constraint.choice))})"}
    return {}


def _literal(text: str) -> str:
    """Returns a regular expression that matches a text and nothing else."""
    return "".join(f"\\{one}" if one in _SPECIAL else one for one in text)
