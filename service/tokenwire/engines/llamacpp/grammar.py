"""The grammar that an answer is held to, in the Lark notation of llguidance.

llama.cpp's llguidance lets an answer end with one token of its own choice alone, which need not be the one that the
model was taught: so the grammar names the model's own token of the end as well.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Constraint, Submission
from tokenwire.engines.llamacpp import calls, thoughts
from tokenwire.engines.llamacpp.tools import arguments_schema, callable_tools, must_call
from tokenwire.engines.schemas import json_object

# Calls of one answer.
MAX_CALLS = 8
# A text that no model begins with unless it must.
MARKER = "#~#"

_HEADER = "%llguidance {}\n"
_ANY = r"/(.|\n)*/"
# A small model fills arguments with white space if it may; this is what examples of calls look like.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """A grammar, and the field of the request that asks for it.

    `inner` is a part of it that another field asks for, as a grammar of its own.
    """

    field: str
    body: str
    inner: "Grammar | None" = None

    def text(self, end_id: int | None = None) -> str:
        """Returns the grammar; the answer may end with the token `end_id`."""
        end = "" if end_id is None else f" <[{end_id}]>?"
        return f"{_HEADER}start: body{end}\n{self.body}"

    def trial(self) -> str:
        """Returns the grammar behind a marker: an answer that does not begin with it was held to nothing."""
        return f'{_HEADER}start: "{MARKER}" body\n{self.body}'


def grammar_of(submission: Submission, *, may_think: bool, opened: bool) -> Grammar | None:
    """Returns the grammar of an answer; None: it is free, or follows a grammar of the request's own.

    Args:
        submission: the request.
        may_think: whether the model may reason before its answer.
        opened: whether the prompt ends where the reasoning begins.

    Raises InvalidRequestError, naming the field, for what can never be a grammar.
    """
    tools, constraint = callable_tools(submission), submission.constraint
    if tools and constraint is not None and constraint.grammar is not None:
        raise InvalidRequestError("constraint.grammar", "cannot be kept together with tools")
    field, answer = _answer(constraint) if constraint is not None else ("", "")
    inner = Grammar(field=field, body=f"body: {answer}\n") if answer else None
    if tools:
        schemas = [(tool.name, arguments_schema(tool)) for tool in tools]
        several = submission.parallel_tool_calls is not False
        rules = _calls(schemas, several=several, required=must_call(submission), answer=answer)
        field = "tools.parameters_schema"
    elif answer:
        rules = f"answer: {answer}\n"
        inner = None
    else:
        return None
    return Grammar(field=field, body=_with_thoughts(rules, may_think=may_think, opened=opened), inner=inner)


def _calls(tools: Sequence[tuple[str, dict[str, Any]]], *, several: bool, required: bool, answer: str) -> str:
    """Returns the rules of an answer with calls.

    Args:
        tools: names, and schemas of arguments.
        several: whether there may be several calls.
        required: whether there must be one.
        answer: what an answer without calls is held to; empty: it is free, and may come before calls.
    """
    more = f" more{{0,{MAX_CALLS - 1}}}" if several else ""
    heads = [(_quoted(f'\n{{"name": {json.dumps(name)}, "arguments": '), schema) for name, schema in tools]
    calls_of_each = [f"{head} %json {_json({**schema, 'x-guidance': _SPACING})}" for head, schema in heads]
    rules = [f"call: ({' | '.join(calls_of_each)}) {_CLOSE}"]
    if several:
        rules.append(f"more: {_OPEN_AGAIN} call")
    if required:
        rules.append(f"answer: {_OPEN} call{more}")
    elif answer:
        rules.append(f"answer: ({answer}) | {_OPEN} call{more}")
    else:
        # The first tag ends the free text, whatever is written before it.
        rules.append(f"answer: TEXT | before call{more}")
        rules.append(rf"TEXT: {_ANY} & ~/(.|\n)*{calls.OPEN}(.|\n)*/")
        rules.append(rf"before[lazy]: /(.|\n)*{calls.OPEN}/")
    return "\n".join(rules) + "\n"


def _with_thoughts(rules: str, *, may_think: bool, opened: bool) -> str:
    if not may_think:
        return f"body: answer\n{rules}"
    close = thoughts.CLOSE.replace("/", r"\/")
    thought = rf"thought[lazy]: /(.|\n)*{close}/" + "\n" + r"gap: /[ \n]{0,4}/" + "\n"
    if opened:
        return f"body: thought gap answer\n{thought}{rules}"
    return f"body: answer | {_quoted(thoughts.OPEN)} thought gap answer\n{thought}{rules}"


def _answer(constraint: Constraint) -> tuple[str, str]:
    """Returns the field that holds the answer, and the right side of its rule; nothing for a grammar of the request."""
    if constraint.json_schema is not None:
        field = "constraint.json_schema"
        return field, f"%json {_json(json_object(constraint.json_schema, field))}"
    if constraint.json_object:
        return "constraint.json_object", f"%json {_json({'type': 'object'})}"
    if constraint.regex is not None:
        return "constraint.regex", _regex(constraint.regex)
    if constraint.choice:
        return "constraint.choice", " | ".join(map(_quoted, constraint.choice))
    return "", ""


def _json(schema: dict[str, Any]) -> str:
    return msgspec.json.encode(schema).decode()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_OPEN, _OPEN_AGAIN, _CLOSE = _quoted(calls.OPEN), _quoted("\n" + calls.OPEN), _quoted("}\n" + calls.CLOSE)
# In the notation a slash ends the expression, and a line's end the rule.
_SPECIAL = re.compile(r"\\(.)|([/\n\r])", re.DOTALL)
_WRITTEN = {"/": r"\/", "\n": r"\n", "\r": r"\r"}
# Where white space is not itself, that would change what a line's end means.
_VERBOSE = re.compile(r"\(\?[A-Za-z-]*x")


def _regex(text: str) -> str:
    if _VERBOSE.search(text):
        raise InvalidRequestError("constraint.regex", "must not ignore white space")
    if text.endswith("\\") and (len(text) - len(text.rstrip("\\"))) % 2:
        raise InvalidRequestError("constraint.regex", "ends in the middle of an escape")
    return "/" + _SPECIAL.sub(_escaped, text) + "/"


def _escaped(match: "re.Match[str]") -> str:
    one = match[1] or match[2]
    return _WRITTEN.get(one, match[0])
