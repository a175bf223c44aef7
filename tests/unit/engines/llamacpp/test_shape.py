"""What is read out of an answer, and what it is held to."""

import pytest

from tokenwire.domain.request import Constraint, Message, ReasoningEffort, Role, Submission, Tool, ToolMode
from tokenwire.engines.llamacpp.channels import Layout
from tokenwire.engines.llamacpp.shape import shape_of
from tokenwire.engines.llamacpp.template import ChatTemplate

HI = (Message(role=Role.USER, content="Hi"),)
TOOL = Tool(name="a")
THINKS = ChatTemplate(thinks=True, switches=True)


@pytest.mark.parametrize(
    ("submission", "template", "layout"),
    [
        (Submission(prompt="Hi"), THINKS, Layout()),
        (Submission(messages=HI), ChatTemplate(), Layout()),
        (Submission(messages=HI), THINKS, Layout(thoughts=True, opened=True)),
        (Submission(messages=HI, reasoning=ReasoningEffort.NONE), THINKS, Layout()),
        (Submission(messages=HI, constraint=Constraint(grammar="x")), THINKS, Layout()),
        (Submission(messages=HI, tools=(TOOL,)), ChatTemplate(), Layout(calls=True)),
        (Submission(messages=HI, tools=(TOOL,), tool_choice="a"), ChatTemplate(), Layout(calls=True, must_call=True)),
        (Submission(messages=HI, tools=(TOOL,), tool_choice=ToolMode.NONE), ChatTemplate(), Layout()),
    ],
)
def test_what_is_read_out_of_an_answer(submission: Submission, template: ChatTemplate, layout: Layout) -> None:
    assert shape_of(submission, "<think>\n", template).layout == layout


def test_an_answer_is_held_to_its_constraint_after_the_reasoning() -> None:
    asked = Submission(messages=HI, constraint=Constraint(json_object=True))
    grammar = shape_of(asked, "<think>", THINKS).grammar
    assert grammar is not None
    assert grammar.body.startswith("body: thought gap answer\n")
