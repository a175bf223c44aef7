"""What an answer may look like: what is read out of it, and what it is held to."""

from dataclasses import dataclass

from tokenwire.domain.request import Submission
from tokenwire.engines.llamacpp.channels import Layout
from tokenwire.engines.llamacpp.grammar import Grammar, grammar_of
from tokenwire.engines.llamacpp.template import ChatTemplate, opens_thought
from tokenwire.engines.llamacpp.tools import callable_tools, must_call


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an answer may look like; `grammar` is None if it is free, or follows a grammar of the request's own."""

    layout: Layout
    grammar: Grammar | None


def shape_of(submission: Submission, prompt: str | None, template: ChatTemplate, run_id: str = "") -> Shape:
    """Returns what the answer to a request may look like.

    Args:
        submission: the request.
        prompt: its rendered text, if it is known.
        template: the model's chat template.
        run_id: the run, for the ids of calls.

    Raises InvalidRequestError, naming the field, for what can never be a grammar.
    """
    # A grammar of the request's own holds for all that is written: reasoning has no place in it.
    own = submission.constraint is not None and submission.constraint.grammar is not None
    thoughts = template.may_think(submission) and not own
    opened = thoughts and opens_thought(prompt)
    layout = Layout(
        run_id=run_id,
        calls=bool(callable_tools(submission)),
        must_call=must_call(submission),
        thoughts=thoughts,
        opened=opened,
    )
    return Shape(layout=layout, grammar=grammar_of(submission, may_think=thoughts, opened=opened))
