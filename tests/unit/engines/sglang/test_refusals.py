"""What SGLang would die of, misunderstand or pass over is refused by the name of the field."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import (
    Constraint,
    Logprobs,
    Message,
    Output,
    Role,
    RunOptions,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
    Tool,
    ToolMode,
)
from tokenwire.engines.sglang.refusals import vet
from tokenwire.engines.sglang.server import Server
from unit.engines.sglang.fields import CHAT, PLAIN, TOOL, TOOLS, USER

SERVER = Server(tokenizes=True, vocabulary=100, tool_parser=True, seeds=True, priorities=1)
RUST = replace(SERVER, rust=True)
TEXT = Submission(prompt="hi")


def refused(submission: Submission, server: Server = SERVER) -> str | None:
    """Returns the field at fault, None if there is none."""
    try:
        vet(submission, server)
    except InvalidRequestError as error:
        return error.violations[0].field
    return None


IDS: list[tuple[str, Callable[[tuple[int, ...]], Submission]]] = [
    ("prompt_ids", lambda ids: Submission(prompt_ids=ids)),
    ("sampling.logit_bias", lambda ids: replace(TEXT, sampling=Sampling(logit_bias=tuple((one, 1.0) for one in ids)))),
    ("stopping.stop_token_ids", lambda ids: replace(TEXT, stopping=Stopping(stop_token_ids=ids))),
    ("output.logprobs.token_ids", lambda ids: replace(TEXT, output=Output(logprobs=Logprobs(token_ids=ids)))),
    (
        "output.prompt_logprobs.token_ids",
        lambda ids: replace(TEXT, output=Output(prompt_logprobs=Logprobs(token_ids=ids))),
    ),
]


@pytest.mark.parametrize(("field", "asking"), IDS, ids=[field for field, _ in IDS])
def test_an_id_that_may_not_be_the_models_is_refused(
    field: str, asking: Callable[[tuple[int, ...]], Submission]
) -> None:
    assert refused(asking((0, 99))) is None
    assert refused(asking((0, 100))) == field
    assert refused(asking((99_999_999,))) == field
    assert refused(asking((-5,))) == field
    # Nobody knows how many there are.
    assert refused(asking((0,)), replace(SERVER, vocabulary=None)) == field


@pytest.mark.parametrize(
    ("field", "submission", "server"),
    [
        ("prompt", Submission(prompt=""), SERVER),
        ("messages.name", Submission(messages=(replace(USER, name="Ada"),)), SERVER),
        # SGLang would make it one of the user, without name and calls.
        ("messages.role", Submission(messages=(USER, Message(role=Role.ASSISTANT, content="a"))), SERVER),
        ("messages.role", Submission(messages=(USER, Message(role=Role.ASSISTANT, content="a"))), RUST),
        ("constraint.json_schema", replace(TEXT, constraint=Constraint(json_schema="{")), SERVER),
        ("constraint.json_schema", replace(TEXT, constraint=Constraint(json_schema="[]")), SERVER),
        ("constraint.structural_tag", replace(TEXT, constraint=Constraint(structural_tag="{")), SERVER),
        ("constraint.structural_tag", replace(TEXT, constraint=Constraint(structural_tag='{"type":"text"}')), SERVER),
        ("sampling.seed", replace(TEXT, sampling=Sampling(seed=1)), replace(SERVER, seeds=False)),
        ("sampling.seed", replace(TEXT, sampling=Sampling(seed=1, n=2)), SERVER),
        (
            "stopping.stop_token_ids",
            replace(TEXT, stopping=Stopping(stop_token_ids=(1,), ignore_eos=True)),
            SERVER,
        ),
        ("stopping.min_tokens", replace(TEXT, stopping=Stopping(min_tokens=5, max_tokens=4)), SERVER),
        ("stopping.min_tokens", replace(TEXT, stopping=Stopping(min_tokens=129)), SERVER),
        ("run.priority", replace(TEXT, run=RunOptions(priority=1)), replace(SERVER, priorities=0)),
        ("tools.name", TOOLS, replace(SERVER, tool_parser=False)),
        ("tools.name", replace(TOOLS, tool_choice=ToolMode.REQUIRED), replace(SERVER, tool_parser=False)),
        ("tools.name", replace(TOOLS, tool_choice="f"), replace(SERVER, tool_parser=False)),
        ("tool_choice.name", replace(TOOLS, tool_choice="g"), SERVER),
        ("tool_choice.mode", replace(PLAIN, tool_choice=ToolMode.REQUIRED), SERVER),
        ("tools.parameters_schema", replace(PLAIN, tools=(Tool(name="f", parameters_schema="x"),)), SERVER),
        ("constraint", replace(TOOLS, constraint=Constraint(regex="a")), SERVER),
        ("output.prompt_logprobs", replace(CHAT, output=Output(prompt_logprobs=Logprobs(top_n=0))), SERVER),
        ("output.logprobs.token_ids", replace(CHAT, output=Output(logprobs=Logprobs(token_ids=(1,)))), SERVER),
        (
            "output.prompt_logprobs",
            replace(PLAIN, output=Output(prompt_logprobs=Logprobs(top_n=0))),
            replace(SERVER, reasoning_parser=True),
        ),
    ],
)
def test_it_is_refused_by_name(field: str, submission: Submission, server: Server) -> None:
    assert refused(submission, server) == field


@pytest.mark.parametrize(
    ("submission", "server"),
    [
        (TEXT, Server()),
        (PLAIN, Server()),
        (Submission(messages=(Message(role=Role.ASSISTANT, content="a", name="Ada"), USER)), SERVER),
        (Submission(messages=(replace(USER, name="Ada"),)), RUST),
        # Without chance there is nothing to seed.
        (replace(TEXT, sampling=Sampling(seed=1, temperature=0.0, n=2)), replace(SERVER, seeds=False)),
        (replace(TEXT, sampling=Sampling(seed=1, top_k=1)), replace(SERVER, seeds=False)),
        (
            replace(TEXT, sampling=Sampling(seed=1, preset=SamplingPreset.DETERMINISTIC)),
            replace(SERVER, seeds=False),
        ),
        (replace(TEXT, sampling=Sampling(seed=1)), replace(SERVER, seeds=None)),
        (replace(TEXT, stopping=Stopping(min_tokens=128)), SERVER),
        (replace(TEXT, stopping=Stopping(min_tokens=129)), replace(SERVER, default_max_tokens=200)),
        # The chat endpoint goes on to the end of the window.
        (replace(CHAT, stopping=Stopping(min_tokens=129)), SERVER),
        (replace(TEXT, run=RunOptions(priority=0)), replace(SERVER, priorities=0)),
        (replace(TEXT, run=RunOptions(priority=5)), replace(SERVER, priorities=None)),
        (TOOLS, SERVER),
        (replace(TOOLS, tool_choice=ToolMode.NONE), replace(SERVER, tool_parser=False)),
        (
            replace(TOOLS, tool_choice=ToolMode.NONE, constraint=Constraint(regex="a")),
            replace(SERVER, tool_parser=False),
        ),
        (replace(PLAIN, tools=(TOOL,), tool_choice="f"), SERVER),
        (replace(PLAIN, output=Output(prompt_logprobs=Logprobs(token_ids=(1,)))), SERVER),
        (replace(CHAT, output=Output(logprobs=Logprobs(top_n=3))), SERVER),
        (replace(TEXT, constraint=Constraint(structural_tag='{"type":"structural_tag","format":{}}')), SERVER),
    ],
)
def test_it_is_not_refused(submission: Submission, server: Server) -> None:
    assert refused(submission, server) is None
