"""What a chat template can do, and what it is sent."""

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, ReasoningEffort, Role, Submission, Tool, ToolCall, ToolMode
from tokenwire.engines.llamacpp.template import ChatTemplate, opens_thought

HI = Message(role=Role.USER, content="Hi")
TOOL = Tool(name="a", description="Does a.")
CALLED = Message(role=Role.ASSISTANT, content="", tool_calls=(ToolCall(id="1", name="a", arguments=""),))
RESULT = Message(role=Role.TOOL, content="one", tool_call_id="1", name="a")
RENDERED = (
    'tools: {"name": "tokenwire_trial"}, to call: <tool_call>\n{"name": .., "arguments": ..}\n</tool_call>\n'
    'assistant: <tool_call>\n{"name": "tokenwire_trial", "arguments": {}}\n</tool_call>\ntool: tokenwire_result'
)


def test_a_template_that_renders_tools_calls_and_results_knows_them() -> None:
    assert ChatTemplate.of("", RENDERED).tools


@pytest.mark.parametrize("lost", ["tokenwire_trial", "tokenwire_result", "<tool_call>", '"arguments"'])
def test_a_template_that_loses_one_of_them_or_writes_calls_otherwise_does_not(lost: str) -> None:
    assert not ChatTemplate.of("", RENDERED.replace(lost, "", 1 if lost != '"arguments"' else 2)).tools


def test_a_template_that_renders_nothing_of_it_knows_nothing() -> None:
    assert ChatTemplate.of("{{ messages }}", "") == ChatTemplate()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ '<think>\\n' }}", ChatTemplate(thinks=True)),
        ("{% if enable_thinking %}<think>{% endif %}", ChatTemplate(thinks=True, switches=True)),
        ("{{ reasoning_effort }}", ChatTemplate(efforts=True)),
    ],
)
def test_reasoning_is_known_by_what_the_template_mentions(source: str, expected: ChatTemplate) -> None:
    assert ChatTemplate.of(source, "") == expected


def test_a_template_that_knows_tools_is_sent_them_and_the_messages_as_they_are() -> None:
    sent = ChatTemplate(tools=True).request(Submission(messages=(HI, CALLED, RESULT), tools=(TOOL,)))
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["a"]
    assert sent["messages"] == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "a", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "one", "name": "a", "tool_call_id": "1"},
    ]


def test_a_template_that_does_not_is_sent_text() -> None:
    sent = ChatTemplate().request(Submission(messages=(HI, CALLED, RESULT), tools=(TOOL,)))
    assert "tools" not in sent
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert all(message.keys() == {"role", "content"} for message in sent["messages"])


@pytest.mark.parametrize("tools", [True, False])
def test_tools_that_are_not_to_be_called_are_not_told(tools: bool) -> None:
    sent = ChatTemplate(tools=tools).request(Submission(messages=(HI,), tools=(TOOL,), tool_choice=ToolMode.NONE))
    assert sent == {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("template", "effort", "variables"),
    [
        (ChatTemplate(thinks=True, switches=True), ReasoningEffort.NONE, {"enable_thinking": False}),
        (ChatTemplate(), ReasoningEffort.NONE, None),
        (ChatTemplate(thinks=True), None, None),
        (ChatTemplate(thinks=True, efforts=True), ReasoningEffort.LOW, {"reasoning_effort": "low"}),
        (
            ChatTemplate(thinks=True, switches=True, efforts=True),
            ReasoningEffort.HIGH,
            {"enable_thinking": True, "reasoning_effort": "high"},
        ),
    ],
)
def test_an_effort_is_a_variable_of_the_template(
    template: ChatTemplate, effort: ReasoningEffort | None, variables: dict[str, object] | None
) -> None:
    sent = template.request(Submission(messages=(HI,), reasoning=effort))
    assert sent.get("chat_template_kwargs") == variables


@pytest.mark.parametrize(
    ("template", "effort"),
    [
        (ChatTemplate(thinks=True), ReasoningEffort.NONE),
        (ChatTemplate(thinks=True, switches=True), ReasoningEffort.MEDIUM),
        (ChatTemplate(), ReasoningEffort.LOW),
    ],
)
def test_an_effort_without_means_is_refused_by_name(template: ChatTemplate, effort: ReasoningEffort) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        template.request(Submission(messages=(HI,), reasoning=effort))
    assert caught.value.violations[0].field == "reasoning.effort"
    assert caught.value.reason == "FEATURE_UNSUPPORTED"


def test_only_a_chat_of_a_thinking_model_that_may_think_has_reasoning() -> None:
    chat = Submission(messages=(HI,))
    assert ChatTemplate(thinks=True).may_think(chat)
    assert not ChatTemplate().may_think(chat)
    assert not ChatTemplate(thinks=True).may_think(Submission(prompt="Hi"))
    assert not ChatTemplate(thinks=True).may_think(Submission(messages=(HI,), reasoning=ReasoningEffort.NONE))


@pytest.mark.parametrize(
    ("prompt", "opens"), [("a<think>\n", True), ("<think></think>\n", False), ("<think> a", False), (None, False)]
)
def test_a_prompt_may_end_where_the_reasoning_begins(prompt: str | None, opens: bool) -> None:
    assert opens_thought(prompt) is opens
