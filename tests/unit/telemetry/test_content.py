"""Prompts and answers as attributes: JSON of the conventions' shape, never more than the bound."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import ChoiceEnd, FinishReason
from tokenwire.domain.request import Message, Role, Submission, Tool, ToolCall
from tokenwire.journal.log import RunLog
from tokenwire.telemetry.content import MAX_CHARACTERS, finish_reason, input_content, output_content

STOP = ChoiceEnd(choice=0, finish_reason=FinishReason.STOP)


def read(attributes: Any, name: str) -> Any:
    return json.loads(attributes[f"gen_ai.{name}"])


def test_every_part_of_a_chat_has_its_type() -> None:
    told = input_content(
        Submission(
            messages=(
                Message(role=Role.SYSTEM, content="be kind"),
                Message(
                    role=Role.ASSISTANT, content="", tool_calls=(ToolCall(id="c1", name="look", arguments='{"a":1}'),)
                ),
                Message(role=Role.TOOL, content="found", tool_call_id="c1"),
            ),
            tools=(Tool(name="look", description="looks", parameters_schema="{}"),),
        )
    )
    assert read(told, "input.messages") == [
        {"role": "system", "parts": [{"type": "text", "content": "be kind"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"a":1}'}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "found"}]},
    ]
    assert read(told, "tool.definitions") == [
        {"type": "function", "name": "look", "description": "looks", "parameters": "{}"}
    ]
    assert "tokenwire.content.cut" not in told


def test_of_a_long_chat_the_last_messages_are_told_and_that_it_was_cut() -> None:
    messages = tuple(Message(role=Role.USER, content=f"{number}" * 1000) for number in range(10)) * 10
    told = input_content(Submission(messages=messages))
    found = read(told, "input.messages")
    assert [one["parts"][0]["content"][0] for one in found] == list("3456789" + "0123456789")
    assert told["tokenwire.content.cut"] is True


def test_a_prompt_of_token_ids_has_nothing_to_tell() -> None:
    assert input_content(Submission(prompt_ids=(1, 2, 3))) == {}


def test_reasoning_and_text_of_each_choice_are_told_apart() -> None:
    log = RunLog()
    log.append_text(Channel(1), "b", 1)
    log.append_text(Channel(0, ChannelKind.REASONING), "hm", 1)
    log.append_text(Channel(0), "a", 2)
    ends = [ChoiceEnd(choice=1, finish_reason=FinishReason.TOOL_CALLS), STOP]
    assert read(output_content(log, ends), "output.messages") == [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "a"}],
            "finish_reason": "stop",
        },
        {"role": "assistant", "parts": [{"type": "text", "content": "b"}], "finish_reason": "tool_call"},
    ]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30).map(lambda text: text * 997), max_size=4))
def test_nothing_is_ever_longer_than_the_bound(texts: list[str]) -> None:
    log = RunLog()
    for text in texts:
        log.append_text(Channel(), text, 1)
    submission = Submission(messages=tuple(Message(role=Role.USER, content=text) for text in texts))
    for name, told in (("input", input_content(submission)), ("output", output_content(log, [STOP]))):
        found = read(told, f"{name}.messages") if texts or name == "output" else []
        contents = [part["content"] for one in found for part in one["parts"]]
        assert sum(map(len, contents)) <= MAX_CHARACTERS
        assert ("tokenwire.content.cut" in told) == (sum(map(len, texts)) > MAX_CHARACTERS)
        assert all(any(text.startswith(content) for text in [*texts, "".join(texts)]) for content in contents)


def test_each_way_to_end_has_a_word() -> None:
    words = {finish_reason(ChoiceEnd(choice=0, finish_reason=one)) for one in FinishReason}
    assert words >= {"stop", "length", "tool_call", "content_filter", "error", "cancelled", "time_limit"}


def test_a_message_that_did_not_fit_at_all_counts_as_cut() -> None:
    message = Message(role=Role.USER, content="x" * (MAX_CHARACTERS // 2))
    told = input_content(Submission(messages=(message,) * 3))
    assert len(read(told, "input.messages")) == 2
    assert told["tokenwire.content.cut"] is True
