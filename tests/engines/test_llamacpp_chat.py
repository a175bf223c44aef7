"""Chats of the embedded engine: rendering by prefix, reasoning, and a template that knows tools."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings, strategies

from engines.embedded import Result, chat, connection_of, started, tokenizer_of
from tokenwire.domain.cursor import ChannelKind
from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import (
    Constraint,
    Message,
    ReasoningEffort,
    Role,
    Sampling,
    Submission,
    Tool,
    ToolCall,
    ToolMode,
)
from tokenwire.engines.llamacpp import process
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.llamacpp.prefixes import Pieces
from tokenwire.engines.llamacpp.template import ChatTemplate

pytestmark = [pytest.mark.llamacpp, pytest.mark.timeout(180)]

GREEDY = Sampling(temperature=0.0)
CLOCK = Tool(name="clock", description="Tells the time")
# Runs the child with a template of the test's.
LAUNCHER = """
import importlib.util, sys
template, path, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location("child", path)
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
usual = child._parameters

def with_template(params, options, key):
    usual(params, options, key).chat_template = open(template).read()
    return params

child._parameters = with_template
child.main(arguments)
"""
TEMPLATE = """
{%- if tools %}{{ '<|im_start|>system\\nTools:\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
{{- '\\n</tools>\\n<tool_call>\\n{"name": "n", "arguments": {}}\\n</tool_call><|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
{{- '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if reasoning_effort %}{{ '<|im_start|>system\\nEffort: ' + reasoning_effort + '<|im_end|>\\n' }}{% endif %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}
{%- else %}{{ '<think>\\n' }}{% endif %}{% endif %}
"""


@pytest_asyncio.fixture
async def thinker(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LlamaCppEngine]:
    """The bundled model with a template that knows tools and reasoning."""
    launcher, template = tmp_path / "launcher.py", tmp_path / "template.jinja"
    launcher.write_text(LAUNCHER)
    template.write_text(TEMPLATE)

    def command(**options: object) -> list[str]:
        python, flag, path, *arguments = process.child_command(**options)  # type: ignore[arg-type]
        assert python == sys.executable
        return [python, flag, str(launcher), str(template), path, *arguments]

    monkeypatch.setattr("tokenwire.engines.llamacpp.adapter.child_command", command)
    async with started(cache, tmp_path, slots=1, context_per_slot=512) as engine:
        yield engine


def reasoning(result: Result) -> str:
    return result.text(kind=ChannelKind.REASONING)


@pytest.mark.asyncio
async def test_the_template_of_the_bundled_model_knows_neither_tools_nor_reasoning(engine: LlamaCppEngine) -> None:
    assert connection_of(engine).template == ChatTemplate()


@pytest.mark.asyncio
async def test_what_a_template_can_do_is_found_by_rendering(thinker: LlamaCppEngine) -> None:
    assert connection_of(thinker).template == ChatTemplate(tools=True, thinks=True, switches=True, efforts=True)


@pytest.mark.asyncio
async def test_reasoning_that_the_prompt_opens_is_told_apart_and_the_answer_is_held_after_it(
    thinker: LlamaCppEngine,
) -> None:
    def odd(number: int, answer: str) -> tuple[str, Message]:
        thought = f"<think>\nIt is {number}.\n</think>\n\n{answer}"
        return f"Is {number} odd?", Message(role=Role.ASSISTANT, content=thought)

    result = await chat(
        thinker,
        *odd(7, "yes"),
        *odd(8, "no"),
        *odd(3, "yes"),
        "Is 5 odd?",
        reasoning=ReasoningEffort.LOW,
        constraint=Constraint(choice=("yes", "no")),
        sampling=GREEDY,
    )
    assert reasoning(result) == "It is 5."
    assert result.text() in ("yes", "no")
    told = [piece for piece in result.pieces() if piece.channel.kind is ChannelKind.REASONING]
    assert result.totals.reasoning_tokens == sum(piece.token_count or 0 for piece in told)


@pytest.mark.asyncio
async def test_reasoning_can_be_turned_off_by_the_template(thinker: LlamaCppEngine) -> None:
    result = await chat(
        thinker,
        "Is 7 odd?",
        reasoning=ReasoningEffort.NONE,
        constraint=Constraint(choice=("yes", "no")),
        sampling=GREEDY,
    )
    assert result.text() in ("yes", "no")
    assert reasoning(result) == ""


@pytest.mark.asyncio
async def test_an_effort_is_rendered_by_the_template(thinker: LlamaCppEngine) -> None:
    asked = Submission(messages=(Message(role=Role.USER, content="Hi"),), reasoning=ReasoningEffort.HIGH)
    prompt = await tokenizer_of(thinker).prompt(asked)
    assert "Effort: high" in (prompt.text or "")
    assert (prompt.text or "").endswith("<think>\n")


@pytest.mark.asyncio
async def test_without_reasoning_in_the_template_none_is_met_and_more_is_refused(engine: LlamaCppEngine) -> None:
    result = await chat(engine, "Hi", max_tokens=3, reasoning=ReasoningEffort.NONE)
    assert len(result.pieces()) == 3
    with pytest.raises(InvalidRequestError) as caught:
        await chat(engine, "Hi", reasoning=ReasoningEffort.LOW)
    assert caught.value.violations[0].field == "reasoning.effort"


@pytest.mark.asyncio
async def test_a_template_that_knows_tools_renders_them_itself(thinker: LlamaCppEngine) -> None:
    call = ToolCall(id="1", name="clock", arguments="{}")
    result = await chat(
        thinker,
        "What time is it?",
        Message(role=Role.ASSISTANT, content="", tool_calls=(call,)),
        Message(role=Role.TOOL, content="noon", tool_call_id="1"),
        "And now?",
        tools=(CLOCK,),
        tool_choice=ToolMode.REQUIRED,
        parallel_tool_calls=False,
        reasoning=ReasoningEffort.NONE,
        sampling=GREEDY,
    )
    assert [(name, json.loads(arguments)) for name, arguments in result.calls()] == [("clock", {})]
    text = await tokenizer_of(thinker).detokenize(result.prompt.token_ids)
    assert text.startswith("<|im_start|>system\nTools:\n<tools>")
    assert "<tool_response>\nnoon\n</tool_response>" in text


WORDS = strategies.sampled_from(
    ["Hello", " wörld", "\n", "  ", "<|im_end|>", "<|im_start|>", "🦜", "<|", "x", "\r\n", "ﬁ"]
)
TURNS = strategies.lists(strategies.lists(WORDS, max_size=8).map("".join), min_size=1, max_size=6)


@pytest.mark.asyncio
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=TURNS)
async def test_a_chat_that_is_read_by_prefix_has_the_tokens_of_the_whole(
    engine: LlamaCppEngine, turns: list[str]
) -> None:
    tokenizer = tokenizer_of(engine)
    messages: tuple[Message, ...] = ()
    for number, turn in enumerate(turns):
        messages += (Message(role=Role.ASSISTANT if number % 2 else Role.USER, content=turn),)
        prompt = await tokenizer.prompt(Submission(messages=messages))
        assert prompt.token_ids == tuple(token.id for token in await tokenizer.tokenize(prompt.text or ""))


@pytest.mark.asyncio
async def test_of_a_chat_that_goes_on_only_what_is_new_is_read(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    connection = connection_of(engine)
    usual = connection.pieces

    async def pieces(text: str, *, add_special: bool, parse_special: bool = True) -> Pieces:
        read.append(text)
        return await usual(text, add_special=add_special, parse_special=parse_special)

    monkeypatch.setattr(connection, "pieces", pieces)
    messages = tuple(
        Message(role=Role.ASSISTANT if place % 2 else Role.USER, content=f"{place} is a number " * 20)
        for place in range(9)
    )
    for count in (1, 3, 5, 7, 9):
        read.clear()
        await tokenizer_of(engine).prompt(Submission(messages=messages[:count]))
    (tail,) = read
    assert tail.startswith("<|im_start|>assistant\n7 is a number")
