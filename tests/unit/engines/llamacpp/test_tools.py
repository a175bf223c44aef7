"""A chat's tools, and how they are told."""

import json

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, Role, Submission, Tool, ToolCall, ToolMode
from tokenwire.engines.llamacpp.tools import arguments_schema, callable_tools, must_call, told_in_text

SYSTEM = Message(role=Role.SYSTEM, content="Be brief.")
HI = Message(role=Role.USER, content="Hi")
A, B = Tool(name="a"), Tool(name="b", description="Does b.", parameters_schema='{"type":"object","required":["x"]}')


def asked(choice: ToolMode | str | None, *tools: Tool) -> Submission:
    return Submission(messages=(HI,), tools=tools, tool_choice=choice)


def field_of(error: pytest.ExceptionInfo[InvalidRequestError]) -> str:
    return error.value.violations[0].field


@pytest.mark.parametrize(
    ("choice", "tools", "must"),
    [
        (None, (A, B), False),
        (ToolMode.AUTO, (A, B), False),
        (ToolMode.REQUIRED, (A, B), True),
        ("b", (B,), True),
        (ToolMode.NONE, (), False),
    ],
)
def test_the_choice_says_which_tools_can_be_called(
    choice: ToolMode | str | None, tools: tuple[Tool, ...], must: bool
) -> None:
    assert callable_tools(asked(choice, A, B)) == tools
    assert must_call(asked(choice, A, B)) is must


@pytest.mark.parametrize(
    ("submission", "field"),
    [
        (asked(ToolMode.REQUIRED), "tool_choice.mode"),
        (asked("c", A, B), "tool_choice.name"),
        (asked(None, A, A), "tools.name"),
    ],
)
def test_a_choice_that_the_tools_cannot_meet_is_refused_by_its_field(submission: Submission, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        callable_tools(submission)
    assert field_of(caught) == field


@pytest.mark.parametrize(
    ("tool", "schema"),
    [
        (A, {"type": "object", "properties": {}, "additionalProperties": False}),
        (B, {"type": "object", "required": ["x"]}),
        (Tool(name="a", strict=True, parameters_schema='{"required":["x"]}'), {"type": "object", "required": ["x"]}),
        (Tool(name="a", strict=False, parameters_schema='{"required":["x"]}'), {"type": "object"}),
        (Tool(name="a", strict=False), {"type": "object"}),
    ],
)
def test_arguments_are_an_object_and_held_to_the_schema_unless_it_is_not_strict(
    tool: Tool, schema: dict[str, object]
) -> None:
    assert arguments_schema(tool) == schema


@pytest.mark.parametrize("schema", ["{", "[]", "5", '{"type": "string"}', '{"type": ["object", "null"]}'])
@pytest.mark.parametrize("strict", [None, False])
def test_a_schema_that_is_not_an_objects_is_refused_by_name(schema: str, strict: bool | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        arguments_schema(Tool(name="a", parameters_schema=schema, strict=strict))
    assert field_of(caught) == "tools.parameters_schema"


def test_tools_are_told_at_the_end_of_the_system_message() -> None:
    system, hi = told_in_text([SYSTEM, HI], [A, B], several=True)
    assert hi is HI
    assert system.role is Role.SYSTEM
    assert system.content.startswith("Be brief.\n\n")
    listed = system.content.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    functions = [json.loads(line)["function"] for line in listed]
    assert [one["name"] for one in functions] == ["a", "b"]
    assert functions[1]["description"] == "Does b."
    assert functions[1]["parameters"] == {"type": "object", "required": ["x"]}
    assert "<tool_call>\n" in system.content


def test_a_chat_without_a_system_message_gets_one_for_its_tools() -> None:
    told = told_in_text([HI], [A], several=False)
    assert [message.role for message in told] == [Role.SYSTEM, Role.USER]


def test_several_calls_are_told_where_they_are_allowed() -> None:
    texts = [told_in_text([HI], [A], several=several)[0].content for several in (True, False)]
    assert len(texts[0]) > len(texts[1])


def test_earlier_calls_and_their_results_are_told_in_the_same_form() -> None:
    calls = (ToolCall(id="1", name="a", arguments='{"x": 1}'), ToolCall(id="2", name="b", arguments=""))
    told = told_in_text(
        [
            HI,
            Message(role=Role.ASSISTANT, content="I look.", tool_calls=calls),
            Message(role=Role.TOOL, content="two", tool_call_id="2"),
            Message(role=Role.TOOL, content="one", tool_call_id="1"),
            Message(role=Role.TOOL, content="{}", name="c"),
            Message(role=Role.TOOL, content="plain"),
            HI,
        ],
        [],
        several=True,
    )
    assert [(message.role.value, message.content) for message in told] == [
        ("user", "Hi"),
        (
            "assistant",
            'I look.\n<tool_call>\n{"name": "a", "arguments": {"x": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call>',
        ),
        (
            "user",
            '<tool_response>\n{"name": "b", "content": "two"}\n</tool_response>\n'
            '<tool_response>\n{"name": "a", "content": "one"}\n</tool_response>\n'
            '<tool_response>\n{"name": "c", "content": "{}"}\n</tool_response>\n'
            "<tool_response>\nplain\n</tool_response>",
        ),
        ("user", "Hi"),
    ]


def test_a_chat_without_tools_is_told_as_it_is() -> None:
    assert told_in_text([SYSTEM, HI], [], several=True) == [SYSTEM, HI]
