"""Whose fault it is that the Rust front end's engine fails, or writes nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.telling import told_by
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece
from tokenwire.domain.request import Constraint, Logprobs, Message, Output, Role, Submission, Tool, ToolMode
from tokenwire.engines.vllm.adapter import VllmEngine
from tokenwire.engines.vllm.blame import Emptiness
from tokenwire.engines.vllm.server import Server
from unit.engines import captures
from unit.engines.scripted_http import Exchange, reply
from unit.engines.vllm.running import job, running, stream

FAILED = reply(*captures.errors("vllm")["rust-err-broken-grammar"])
FAILED_LATER = stream(captures.body("vllm", "rust-broken-schema-failed.resp"))
ANSWERED = reply(200, b'{"choices":[{"text":"a","finish_reason":"length"}]}')
PROMPT = Submission(prompt="hi")
CHAT = Submission(messages=(Message(role=Role.USER, content="hi"),))
REGEX = Constraint(regex="(a")
TOOLS = (Tool(name="f", parameters_schema='{"type": 5}'),)
RUST = Server(rust=True, tags=True)


def _constrained(body: dict[str, Any]) -> bool:
    return "structured_outputs" in body or ("tools" in body and body.get("tool_choice") != "none")


async def _failure(
    submission: Submission,
    fails: Callable[[dict[str, Any]], bool],
    *,
    failed: bytes = FAILED,
    server: Server = RUST,
) -> tuple[EngineError, list[dict[str, Any]]]:
    """Returns the error of a request and what was asked after it."""

    async def script(exchange: Exchange) -> None:
        first = exchange.json["max_tokens"] != 1 if "max_tokens" in exchange.json else True
        await exchange.write((failed if first else FAILED) if fails(exchange.json) else ANSWERED)

    async with running(script) as (engine, scripted):
        engine.server = server
        error = await _error(engine, submission)
        return error, [one.json for one in scripted.requests[1:]]


async def _error(engine: VllmEngine, submission: Submission) -> EngineError:
    with pytest.raises(EngineError) as caught:
        async for _ in told_by(engine, job(submission)):
            pass
    return caught.value


@pytest.mark.asyncio
@pytest.mark.parametrize("failed", [FAILED, FAILED_LATER])
@pytest.mark.parametrize(
    ("submission", "field"),
    [
        (replace(PROMPT, constraint=Constraint(json_schema='{"type": 5}')), "constraint.json_schema"),
        (replace(PROMPT, constraint=REGEX), "constraint.regex"),
        (replace(CHAT, constraint=Constraint(grammar="root ::= (")), "constraint.grammar"),
        (replace(PROMPT, constraint=Constraint(structural_tag="{}")), "constraint.structural_tag"),
        (replace(PROMPT, constraint=Constraint(choice=("a",))), "constraint.choice"),
        (replace(PROMPT, constraint=Constraint(json_object=True)), "constraint.json_object"),
        (replace(CHAT, tools=TOOLS), "tools.parameters_schema"),
        (replace(CHAT, tools=TOOLS, tool_choice=ToolMode.REQUIRED), "tools.parameters_schema"),
    ],
)
async def test_a_constraint_that_fails_alone_is_to_blame(submission: Submission, field: str, failed: bytes) -> None:
    error, asked = await _failure(submission, _constrained, failed=failed)
    assert (error.code, error.reason, error.retryable) == (Code.INVALID_ARGUMENT, "ENGINE_REFUSED", False)
    assert [violation.field for violation in error.violations] == [field]
    # The small ones tell nothing of the request but its constraint.
    assert [one["max_tokens"] for one in asked] == [1, 1]
    assert [_constrained(one) for one in asked] == [True, False]
    assert "hi" not in str([one.get("prompt") or one.get("messages") for one in asked])


@pytest.mark.asyncio
async def test_a_whole_answer_that_fails_is_looked_into_as_well() -> None:
    submission = replace(PROMPT, constraint=REGEX, output=Output(prompt_logprobs=Logprobs(top_n=1)))
    error, _ = await _failure(submission, _constrained)
    assert [violation.field for violation in error.violations] == ["constraint.regex"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("submission", "fails", "server", "asked"),
    [
        # Everything fails.
        (replace(PROMPT, constraint=REGEX), lambda _: True, RUST, 2),
        # It was not the constraint.
        (replace(PROMPT, constraint=REGEX), lambda body: "stream" in body, RUST, 1),
        # There is nothing to blame, or a front end that checks by itself.
        (PROMPT, lambda _: True, RUST, 0),
        (replace(PROMPT, constraint=REGEX), lambda _: True, Server(), 0),
    ],
)
async def test_an_engine_that_fails_by_itself_is_to_blame(
    submission: Submission, fails: Callable[[dict[str, Any]], bool], server: Server, asked: int
) -> None:
    error, after = await _failure(submission, fails, server=server)
    assert (error.reason, error.violations, len(after)) == ("ENGINE_FAILED", (), asked)


@pytest.mark.asyncio
async def test_a_server_that_cannot_be_asked_leaves_the_failure_as_it_is() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(FAILED if "stream" in exchange.json else reply(503, b""))

    async with running(script) as (engine, _):
        engine.server = RUST
        assert (await _error(engine, replace(PROMPT, constraint=REGEX))).reason == "ENGINE_FAILED"


@pytest.mark.asyncio
async def test_a_failure_after_the_first_token_is_the_engines() -> None:
    later = captures.body("vllm", "rust-broken-schema-failed.resp").replace(b'"token_ids":[]}]', b'"token_ids":[3]}]')

    async def script(exchange: Exchange) -> None:
        await exchange.write(stream(later))

    async with running(script) as (engine, server):
        engine.server = RUST
        assert (await _error(engine, replace(PROMPT, constraint=REGEX))).reason == "ENGINE_FAILED"
        assert len(server.requests) == 1


def _emptied(constraint: Constraint, text: str = "") -> bool:
    told: list[Generated] = [
        Piece(channel=Channel(), text=text, token_ids=[2]),
        ChoiceDone(choice=0, finish_reason=FinishReason.STOP),
    ]
    try:
        Emptiness(constraint).check(told)
    except EngineError:
        # The end is not told, what came before it is.
        assert len(told) == 1
        return True
    assert len(told) == 2
    return False


@pytest.mark.parametrize(
    ("constraint", "broken"),
    [
        (Constraint(json_schema="{}"), True),
        (Constraint(json_object=True), True),
        (Constraint(choice=("a",)), True),
        (Constraint(choice=("a", "")), False),
        (Constraint(grammar="root ::= "), True),
        (Constraint(regex="(a"), True),
        (Constraint(regex="a+"), True),
        (Constraint(regex="a*"), False),
        (Constraint(structural_tag="{}"), False),
    ],
)
def test_an_empty_answer_tells_of_a_constraint_that_nothing_meets(constraint: Constraint, broken: bool) -> None:
    assert _emptied(constraint) is broken
    assert not _emptied(constraint, "a")
