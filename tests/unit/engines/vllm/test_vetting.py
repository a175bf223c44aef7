"""What vLLM does not have, refused by name before there is a run."""

from dataclasses import replace
from typing import Any

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import (
    BeamSearch,
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
from tokenwire.engines.vllm.server import Server
from tokenwire.engines.vllm.vetting import vet

PROMPT = Submission(prompt="hi")
CHAT = Submission(messages=(Message(role=Role.USER, content="hi"),))
TOOLS = (Tool(name="f"),)
REGEX = Constraint(regex="a")


def _beam(**fields: Any) -> Submission:
    sampling = fields.pop("sampling", {})
    return replace(PROMPT, sampling=Sampling(beam_search=BeamSearch(width=2), **sampling), **fields)


def _told(**values: Any) -> Output:
    return Output(logprobs=Logprobs(**values))


REFUSED = [
    (replace(PROMPT, constraint=Constraint(json_schema="x")), "constraint.json_schema"),
    (replace(PROMPT, constraint=Constraint(structural_tag="[]")), "constraint.structural_tag"),
    # vLLM passes the constraint over, or refuses without a name.
    (replace(CHAT, tools=TOOLS, tool_choice=ToolMode.REQUIRED, constraint=REGEX), "constraint"),
    (replace(CHAT, tools=TOOLS, tool_choice="f", constraint=REGEX), "constraint"),
    (replace(CHAT, tools=TOOLS, tool_choice="g"), "tool_choice.name"),
    (replace(PROMPT, output=_told(top_n=1, token_ids=(3,))), "output.logprobs.token_ids"),
    (replace(PROMPT, output=_told(token_ids=tuple(range(129)))), "output.logprobs.token_ids"),
    (replace(PROMPT, stopping=Stopping(max_tokens=3, min_tokens=4)), "stopping.min_tokens"),
    (replace(PROMPT, stopping=Stopping(min_tokens=17)), "stopping.min_tokens"),
    (replace(PROMPT, sampling=Sampling(temperature=0.0, n=2)), "sampling.n"),
    (replace(PROMPT, sampling=Sampling(preset=SamplingPreset.DETERMINISTIC, n=2)), "sampling.n"),
    (_beam(sampling={"n": 3}), "sampling.n"),
    (_beam(sampling={"top_p": 0.5}), "sampling.top_p"),
    (_beam(sampling={"preset": SamplingPreset.BALANCED}), "sampling.preset"),
    (_beam(sampling={"top_k": 5}), "sampling.top_k"),
    (_beam(sampling={"min_p": 0.5}), "sampling.min_p"),
    (_beam(sampling={"repetition_penalty": 1.5}), "sampling.repetition_penalty"),
    (_beam(sampling={"presence_penalty": 1.0}), "sampling.presence_penalty"),
    (_beam(sampling={"frequency_penalty": 1.0}), "sampling.frequency_penalty"),
    (_beam(sampling={"seed": 0}), "sampling.seed"),
    (_beam(sampling={"logit_bias": ((1, 1.0),)}), "sampling.logit_bias"),
    (_beam(stopping=Stopping(min_tokens=1)), "stopping.min_tokens"),
    (_beam(stopping=Stopping(stop=("a",))), "stopping.stop"),
    (_beam(stopping=Stopping(stop_token_ids=(1,))), "stopping.stop_token_ids"),
    (_beam(constraint=REGEX), "constraint"),
    (_beam(output=Output(prompt_logprobs=Logprobs(top_n=1))), "output.prompt_logprobs"),
    (_beam(output=_told(top_n=5)), "output.logprobs.top_n"),
    (_beam(output=_told(all=True)), "output.logprobs.all"),
    (_beam(output=_told(token_ids=(1,))), "output.logprobs.token_ids"),
    (_beam(run=RunOptions(priority=1)), "run.priority"),
    (replace(CHAT, tools=TOOLS, sampling=Sampling(beam_search=BeamSearch(width=2))), "tools"),
]


@pytest.mark.parametrize(("submission", "field"), REFUSED)
def test_it_is_refused_by_name(submission: Submission, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        vet(submission, Server())
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    "submission",
    [
        PROMPT,
        replace(CHAT, tools=TOOLS, constraint=REGEX),
        replace(CHAT, tools=TOOLS, tool_choice=ToolMode.AUTO, constraint=REGEX),
        replace(PROMPT, constraint=Constraint(json_schema="{}")),
        replace(PROMPT, constraint=Constraint(structural_tag="{}")),
        replace(PROMPT, output=_told(top_n=0, token_ids=(3,))),
        replace(PROMPT, output=_told(all=True, token_ids=(3,))),
        replace(PROMPT, output=_told(token_ids=(*range(128), 3))),
        replace(PROMPT, stopping=Stopping(min_tokens=16)),
        replace(PROMPT, sampling=Sampling(temperature=0.0, n=1)),
        replace(PROMPT, sampling=Sampling(n=2)),
        replace(CHAT, stopping=Stopping(min_tokens=17)),
        # How many stop strings vLLM takes is a setting of its own; it names them when it refuses.
        replace(PROMPT, stopping=Stopping(stop=tuple("abcde"))),
        _beam(sampling={"n": 2, "temperature": 0.5, "top_k": 0, "repetition_penalty": 1.0}, output=_told(top_n=4)),
        _beam(sampling={"preset": SamplingPreset.DETERMINISTIC}, stopping=Stopping(max_tokens=3, ignore_eos=True)),
    ],
)
def test_it_is_taken(submission: Submission) -> None:
    vet(submission, Server())


TAG = Constraint(structural_tag='{"type":"structural_tag","format":{}}')
OLD_TAG = Constraint(structural_tag='{"structures":[],"triggers":[]}')
WITH_TOOLS = replace(CHAT, tools=TOOLS, constraint=REGEX)
ON = Stopping(ignore_eos=True)
# A request, and the field that is refused where structural tags work, do not work, and where that is not known.
RUST = [
    (PROMPT, None, None, None),
    (replace(PROMPT, sampling=Sampling(n=2)), "sampling.n", "sampling.n", "sampling.n"),
    (replace(PROMPT, sampling=Sampling(n=1)), None, None, None),
    (replace(PROMPT, constraint=REGEX), None, None, None),
    (replace(PROMPT, constraint=TAG), None, "constraint.structural_tag", None),
    (replace(PROMPT, constraint=OLD_TAG), None, None, None),
    (replace(PROMPT, constraint=REGEX, stopping=ON), None, "stopping.ignore_eos", "stopping.ignore_eos"),
    (replace(PROMPT, stopping=ON), None, None, None),
    # The constraint of the tools would replace it; without tags there is none.
    (WITH_TOOLS, "constraint", None, "constraint"),
    (replace(WITH_TOOLS, tools=(Tool(name="f", strict=False),)), None, None, None),
    (replace(WITH_TOOLS, tool_choice=ToolMode.NONE), None, None, None),
]


@pytest.mark.parametrize(("submission", "with_tags", "without", "unknown"), RUST)
def test_the_rust_front_end_refuses_what_it_would_pass_over(
    submission: Submission, with_tags: str | None, without: str | None, unknown: str | None
) -> None:
    for tags, field in ((True, with_tags), (False, without), (None, unknown)):
        server = Server(rust=True, tags=tags)
        if field is None:
            vet(submission, server)
        else:
            with pytest.raises(InvalidRequestError) as caught:
                vet(submission, server)
            assert [violation.field for violation in caught.value.violations] == [field]
