"""Parses the requests and holds them to the rules in the .proto files."""

from collections.abc import Awaitable
from typing import Any, Self

import protovalidate

from tokenwire.domain.errors import Code, TokenwireError, Violation
from tokenwire.transport.call import Call, Handler, Kind, Requests

# Details travel in trailers, which clients refuse beyond 8 KiB.
MAX_VIOLATIONS = 20


class Validation:
    """Hands on messages that parse and keep every rule, whether there is one or a stream of them."""

    def around(self, request: Any, call: Call, proceed: Handler) -> Awaitable[Any]:
        """Serves the call."""
        streamed = call.kind in (Kind.CLIENT_STREAM, Kind.BIDI)
        return proceed(_Held(request, call) if streamed else _held(request, call), call)


def check_rules(message: Any) -> None:
    """Holds a message to its rules. Raises INVALID_ARGUMENT with the fields that break one."""
    violations = protovalidate.collect_violations(message)
    if violations:
        raise _refusal([_violation(one) for one in violations[:MAX_VIOLATIONS]], len(violations))


class _Held:
    """Streamed requests, each held to the rules when it is read."""

    def __init__(self, requests: Requests, call: Call) -> None:
        self._requests = requests
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return _held(await anext(self._requests), self._call)


def _held(request: bytes, call: Call) -> Any:
    try:
        message = call.parse(request)
    except ValueError as error:
        raise TokenwireError(
            Code.INTERNAL, "MALFORMED_REQUEST", "the request is not a message of this method"
        ) from error
    check_rules(message)
    return message


def _refusal(violations: list[Violation], count: int) -> TokenwireError:
    first = violations[0]
    more = f" (and {count - 1} more)" if count > 1 else ""
    return TokenwireError(
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        f"{first.field}: {first.description}{more}" if first.field else f"{first.description}{more}",
        violations=tuple(violations),
    )


def _violation(violation: protovalidate.Violation) -> Violation:
    proto = violation.proto
    parts: list[str] = []
    for element in proto.field.elements if proto.field else ():
        parts.append(element.field_name)
        subscript = element.subscript
        if subscript is not None and isinstance(subscript.value, int) and not isinstance(subscript.value, bool):
            parts[-1] += f"[{subscript.value}]"
    field, text = ".".join(parts), proto.message
    if not field and ": " in text:
        # A rule over several fields names its field in its message.
        field, text = text.split(": ", 1)
    return Violation(field=field[:200], description=text[:200])
