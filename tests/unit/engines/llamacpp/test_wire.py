"""The body of llama.cpp's native completion."""

from typing import Any

import pytest

from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.generation import Job, Prompt
from tokenwire.domain.request import (
    Constraint,
    KvOptions,
    Logprobs,
    Output,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
)
from tokenwire.engines.llamacpp.wire import decode_event, request_body

BASE = {"temperature": 0.6, "top_p": 0.95, "repeat_penalty": 1.1}


def job_of(submission: Submission) -> Job:
    return Job(run_id="run", model="model", submission=submission, prompt=Prompt(text="abc", token_ids=(7, 8)))


def body(submission: Submission, base: dict[str, float] | None = None) -> dict[str, Any]:
    return request_body(job_of(submission), base or {}, 256, 2048, vocabulary=1000)


def test_the_prompt_is_sent_as_token_ids_and_the_answer_is_streamed() -> None:
    assert body(Submission(prompt="abc")) == {
        "prompt": [7, 8],
        "stream": True,
        "return_tokens": True,
        "return_progress": True,
        "n_predict": 256,
        "cache_prompt": True,
    }


def test_a_prompt_without_ids_is_sent_as_text() -> None:
    job = Job(run_id="run", model="model", submission=Submission(prompt="abc"), prompt=Prompt(text="abc"))
    assert request_body(job, {}, 256, 2048)["prompt"] == "abc"


def test_every_field_has_llama_cpps_name() -> None:
    sent = body(
        Submission(
            prompt="abc",
            sampling=Sampling(
                temperature=0.5,
                top_p=0.8,
                top_k=9,
                min_p=0.1,
                repetition_penalty=1.2,
                presence_penalty=0.3,
                frequency_penalty=0.4,
                seed=11,
                logit_bias=((5, -1.5), (6, 2.0)),
                n=3,
            ),
            stopping=Stopping(max_tokens=12, stop=("x", "y"), ignore_eos=True),
            output=Output(logprobs=Logprobs(top_n=4)),
            kv=KvOptions(bypass=True),
        )
    )
    expected = {
        "temperature": 0.5,
        "top_p": 0.8,
        "top_k": 9,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "repeat_last_n": 2048,
        "seed": 11,
        "logit_bias": [[5, -1.5], [6, 2.0]],
        "n": 3,
        "n_predict": 12,
        "stop": ["x", "y"],
        "ignore_eos": True,
        "n_probs": 4,
        "cache_prompt": False,
    }
    assert {name: sent[name] for name in expected} == expected


def test_a_field_that_the_request_sets_wins_over_its_preset_and_that_over_the_models_own_values() -> None:
    chosen = Sampling(preset=SamplingPreset.CREATIVE, temperature=0.0)
    sent = body(Submission(prompt="abc", sampling=chosen), BASE)
    assert (sent["temperature"], sent["top_p"], sent["repeat_penalty"]) == (0.0, 0.98, 1.1)


@pytest.mark.parametrize(
    ("preset", "temperature", "top_p"),
    [
        (SamplingPreset.DETERMINISTIC, 0.0, 0.95),
        (SamplingPreset.PRECISE, 0.2, 0.9),
        (SamplingPreset.BALANCED, 0.7, 0.95),
        (SamplingPreset.CREATIVE, 1.0, 0.98),
    ],
)
def test_a_preset_is_a_set_of_values(preset: SamplingPreset, temperature: float, top_p: float) -> None:
    sent = body(Submission(prompt="abc", sampling=Sampling(preset=preset)), BASE)
    assert (sent["temperature"], sent["top_p"]) == (temperature, top_p)


def test_the_models_own_penalty_keeps_llama_cpps_window_of_tokens() -> None:
    assert "repeat_last_n" not in body(Submission(prompt="abc"), BASE)


def test_logprobs_of_the_chosen_token_alone_still_turn_them_on() -> None:
    assert body(Submission(prompt="abc", output=Output(logprobs=Logprobs(top_n=0))))["n_probs"] == 1


@pytest.mark.parametrize("asked", [Logprobs(all=True), Logprobs(token_ids=(5,)), Logprobs(token_ids=(5,), top_n=3)])
def test_logprobs_of_tokens_by_id_are_picked_out_of_the_whole_vocabulary(asked: Logprobs) -> None:
    assert body(Submission(prompt="abc", output=Output(logprobs=asked)))["n_probs"] == 1000


def test_a_grammar_of_ones_own_is_sent_as_it_is() -> None:
    assert body(Submission(prompt="abc", constraint=Constraint(grammar='root ::= "a"')))["grammar"] == 'root ::= "a"'


def test_any_other_constraint_is_sent_as_the_grammar_that_was_made_of_it() -> None:
    job = job_of(Submission(prompt="abc", constraint=Constraint(json_object=True)))
    sent = request_body(job, {}, 256, 2048, grammar="made")
    assert sent["grammar"] == "made"
    assert "json_schema" not in sent


@pytest.mark.parametrize(
    "payload", [b"{", b"[DONE]", b"{}", b'{"stop":false,"content":"\xff"}', b'{"stop":"no"}', b"[]"]
)
def test_what_is_not_an_event_is_not_the_engines_protocol(payload: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        decode_event(payload)
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "UPSTREAM_PROTOCOL")
