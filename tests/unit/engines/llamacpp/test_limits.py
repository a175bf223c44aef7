"""What a request may not ask of llama.cpp, by field."""

from collections.abc import Callable

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import (
    Constraint,
    Logprobs,
    Message,
    Output,
    Role,
    Sampling,
    Stopping,
    Submission,
    Tool,
    ToolMode,
)
from tokenwire.engines.llamacpp.limits import check_request, check_tokens

ENDLESS = Stopping(ignore_eos=True)
HI = (Message(role=Role.USER, content="Hi"),)


def given(token_ids: tuple[int, ...]) -> Output:
    return Output(logprobs=Logprobs(token_ids=token_ids))


@pytest.mark.parametrize(
    ("submission", "field"),
    [
        (Submission(sampling=Sampling(n=4)), "sampling.n"),
        (Submission(constraint=Constraint(grammar='\n%llguidance {}\nstart: "a"')), "constraint.grammar"),
        (Submission(constraint=Constraint(regex="(?x)a")), "constraint.regex"),
        (Submission(constraint=Constraint(json_schema="[]")), "constraint.json_schema"),
        (Submission(messages=HI, tools=(Tool(name="a", parameters_schema="5"),)), "tools.parameters_schema"),
        (Submission(messages=HI, tools=(Tool(name="a"),), tool_choice="b"), "tool_choice.name"),
        (Submission(messages=HI, tool_choice=ToolMode.REQUIRED), "tool_choice.mode"),
        (Submission(stopping=ENDLESS, constraint=Constraint(grammar='root ::= "a"')), "stopping.ignore_eos"),
        (Submission(stopping=ENDLESS, messages=HI, tools=(Tool(name="a"),)), "stopping.ignore_eos"),
    ],
)
def test_what_no_child_would_take_is_refused_by_name(submission: Submission, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_request(submission, 3)
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize("token_id", [-1, 100, 2**32 + 1])
@pytest.mark.parametrize(
    ("field", "submission"),
    [
        ("prompt_ids", lambda one: Submission(prompt_ids=(5, one))),
        ("sampling.logit_bias", lambda one: Submission(sampling=Sampling(logit_bias=((one, 1.0),)))),
        ("stopping.stop_token_ids", lambda one: Submission(stopping=Stopping(stop_token_ids=(one,)))),
        ("output.logprobs.token_ids", lambda one: Submission(output=given((one,)))),
    ],
)
def test_a_token_that_the_model_does_not_have_is_refused_by_name(
    field: str, submission: Callable[[int], Submission], token_id: int
) -> None:
    check_tokens(submission(99), 100)
    with pytest.raises(InvalidRequestError) as caught:
        check_tokens(submission(token_id), 100)
    assert caught.value.violations[0].field == field
    assert caught.value.metadata == {"limit": "100"}


@pytest.mark.parametrize(
    ("output", "field"),
    [(given((5,)), "output.logprobs.token_ids"), (Output(logprobs=Logprobs(all=True)), "output.logprobs.all")],
)
def test_log_probabilities_of_a_vocabulary_that_no_event_can_hold_are_refused(output: Output, field: str) -> None:
    check_tokens(Submission(output=output), 49_152)
    check_tokens(Submission(output=Output(logprobs=Logprobs(top_n=5))), 151_936)
    with pytest.raises(InvalidRequestError) as caught:
        check_tokens(Submission(output=output), 151_936)
    assert caught.value.violations[0].field == field


def test_a_plain_request_is_taken() -> None:
    check_request(Submission(prompt="Hi", sampling=Sampling(n=3), stopping=ENDLESS), 3)
    check_tokens(Submission(prompt="Hi"), 100)
