"""Whether a constraint is why a server without checks failed, or wrote nothing."""

import re
from typing import Any

from tokenwire.domain.errors import Code, EngineError, Violation
from tokenwire.domain.generation import ChoiceDone, Generated, Piece
from tokenwire.domain.request import Constraint, Submission
from tokenwire.engines.openai.request import CHAT_PATH, COMPLETIONS_PATH
from tokenwire.engines.upstream import Upstream


class Emptiness:
    """Sees that a broken constraint has ended a choice before its first character.

    llguidance lets nothing but the end of an answer follow a constraint that it could not read. So an empty answer
    tells of one, unless the constraint may be met by nothing. Of a grammar that cannot be told from here; it counts as
    broken, as an answer that holds to nothing would be worse.
    """

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._written: set[int] = set()

    def check(self, told: list[Generated]) -> None:
        """Raises EngineError, after taking the end away, if a choice has ended so."""
        for place, item in enumerate(told):
            if isinstance(item, Piece) and item.text:
                self._written.add(item.channel.choice)
            elif isinstance(item, ChoiceDone) and item.choice not in self._written:
                if _may_be_empty(self._constraint):
                    continue
                del told[place:]
                raise constraint_refused(constraint_field(self._constraint))


async def blamed_field(upstream: Upstream, body: dict[str, Any], submission: Submission) -> str | None:
    """Returns the field that made the engine fail over a request, or None if it is not the request's constraint.

    It is if a small request fails with the same constraint and does not fail without it. Raises EngineError if the
    server cannot be asked.
    """
    kept: tuple[str, ...]
    if submission.constraint is not None:
        field, path, kept = constraint_field(submission.constraint), COMPLETIONS_PATH, ("structured_outputs",)
    elif submission.tools:
        field, path, kept = "tools.parameters_schema", CHAT_PATH, ("tools", "tool_choice")
    else:
        return None
    if not await _fails(upstream, path, _small(path, body, kept)):
        return None
    return None if await _fails(upstream, path, _small(path, body, ())) else field


def constraint_field(constraint: Constraint) -> str:
    """Returns the path of the kind of constraint that is set."""
    kinds = {
        "json_schema": constraint.json_schema is not None,
        "regex": constraint.regex is not None,
        "grammar": constraint.grammar is not None,
        "choice": bool(constraint.choice),
        "structural_tag": constraint.structural_tag is not None,
    }
    return f"constraint.{next((kind for kind, is_set in kinds.items() if is_set), 'json_object')}"


def constraint_refused(field: str) -> EngineError:
    """Says that the engine could not make a grammar of what a field holds."""
    violation = Violation(field=field, description="refused by the engine")
    return EngineError(
        Code.INVALID_ARGUMENT, "ENGINE_REFUSED", "the engine refused the request", violations=(violation,)
    )


def _small(path: str, body: dict[str, Any], kept: tuple[str, ...]) -> dict[str, Any]:
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]} if path == CHAT_PATH else {"prompt": "a"}
    return {"model": body["model"], "max_tokens": 1, **prompt, **{key: body[key] for key in kept if key in body}}


async def _fails(upstream: Upstream, path: str, body: dict[str, Any]) -> bool:
    try:
        await upstream.post(path, body)
    except EngineError as error:
        if error.reason != "ENGINE_FAILED":
            raise
        return True
    return False


def _may_be_empty(constraint: Constraint) -> bool:
    if constraint.regex is not None:
        try:
            return re.fullmatch(constraint.regex, "") is not None
        except (re.error, RecursionError, OverflowError):
            return False
    # A tag of llguidance's kind leaves the model free to write nothing; a broken one is a failure.
    return constraint.structural_tag is not None or "" in constraint.choice
