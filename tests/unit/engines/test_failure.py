"""What engines' refusals become."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines import failure
from tokenwire.engines.failure import RETRY_AFTER_DEFAULT, RETRY_AFTER_MAX, in_stream, refusal, retry_after
from unit.engines import captures

REFUSED = (Code.INVALID_ARGUMENT, "ENGINE_REFUSED")
TOO_LONG = (Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED")
NO_MODEL = (Code.NOT_FOUND, "MODEL_NOT_FOUND")
NO_ENDPOINT = (Code.UNAVAILABLE, "UPSTREAM_PROTOCOL")
FAILED = (Code.UNAVAILABLE, "ENGINE_FAILED")
OVERLOADED = (Code.UNAVAILABLE, "ENGINE_OVERLOADED")
AUTH = (Code.INTERNAL, "UPSTREAM_AUTH")

# Every other capture is a refusal of the request.
EXPECTED = {
    "vllm": {
        "69c-so-bad-grammar": FAILED,
        "90-err-404": NO_ENDPOINT,
        "90-err-405": NO_ENDPOINT,
        "90-err-chat-too-long": TOO_LONG,
        "90-err-prompt-too-long": TOO_LONG,
        "90-err-prompt-too-long-text": TOO_LONG,
        "90-err-stream-prompt-too-long": TOO_LONG,
        "90-err-stream-unknown-model": NO_MODEL,
        "90-err-tokenize-unknown-model": NO_MODEL,
        "90-err-unknown-model": NO_MODEL,
        "90-err-unknown-model-chat": NO_MODEL,
        "rust-err-broken-grammar": FAILED,
        "rust-err-too-long": TOO_LONG,
        "rust-err-trial": FAILED,
        "rust-err-unknown-model": NO_MODEL,
    },
    "sglang": {
        "adm_flush_userkey": AUTH,
        "adm_hicache_get_user": AUTH,
        "auth_bad": AUTH,
        "auth_get_model_info": AUTH,
        "auth_models": AUTH,
        "auth_none": AUTH,
        "drain_health": OVERLOADED,
        "err_method": NO_ENDPOINT,
        "err_sum_toolong": TOO_LONG,
        "err_toolong_chat": TOO_LONG,
        "err_toolong_chat_stream": TOO_LONG,
        "err_toolong_cmpl": TOO_LONG,
        "err_toolong_cmpl_stream": TOO_LONG,
        "err_toolong_generate": TOO_LONG,
        "get_load": NO_ENDPOINT,
        "models_unknown": NO_MODEL,
        "notfound": NO_ENDPOINT,
        "qfull_chat": OVERLOADED,
        "queue_4": OVERLOADED,
        "queue_5": OVERLOADED,
        "version": NO_ENDPOINT,
    },
    "llama-cpp": {
        "36-err-notfound": NO_ENDPOINT,
        "39-err-method": NO_ENDPOINT,
        "42-err-too-long": TOO_LONG,
    },
}
CASES = [(engine, name) for engine in EXPECTED for name in captures.errors(engine)]

CANARY = "canary-5f0c"


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_every_captured_refusal_has_its_code_and_reason(engine: str, name: str) -> None:
    status, body = captures.errors(engine)[name]
    error = refusal(status, body)
    assert (error.code, error.reason) == EXPECTED[engine].get(name, REFUSED)


def test_every_expectation_is_of_a_capture() -> None:
    assert all(EXPECTED[engine].keys() <= captures.errors(engine).keys() for engine in EXPECTED)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qfull_cmpl_stream.txt", OVERLOADED),
        ("err_temp_neg_stream.txt", REFUSED),
        ("err_toolong_generate_stream.txt", TOO_LONG),
    ],
)
def test_every_captured_error_in_a_stream_has_its_code_and_reason(name: str, expected: tuple[Code, str]) -> None:
    first = captures.events(captures.body("sglang", name))[0]
    error = in_stream(json.loads(first.removeprefix(b"data: "))["error"])
    assert (error.code, error.reason) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # vLLM when its engine core dies, vLLM's Rust front end, and words for codes.
        ({"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}, FAILED),
        ({"message": "Internal server error", "type": "server_error", "param": None, "code": "server_error"}, FAILED),
        ({"message": "Invalid grammar", "type": "BadRequestError", "param": None, "code": 400}, REFUSED),
        ({"message": "n must be 1", "type": "invalid_request_error", "param": "n", "code": "bad"}, REFUSED),
        ({"message": "x", "code": "503"}, OVERLOADED),
        ({"message": "x", "code": "429"}, (Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED")),
        ({"message": "x", "code": True}, FAILED),
        ({"message": "CUDA out of memory"}, (Code.RESOURCE_EXHAUSTED, "ENGINE_OUT_OF_MEMORY")),
        ("something", FAILED),
        ([], FAILED),
        ({}, FAILED),
    ],
)
def test_an_error_in_a_stream_counts_by_its_own_code(error: object, expected: tuple[Code, str]) -> None:
    found = in_stream(error)
    assert (found.code, found.reason) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (302, NO_ENDPOINT),
        (204, NO_ENDPOINT),
        (400, REFUSED),
        (401, AUTH),
        (403, AUTH),
        (404, NO_ENDPOINT),
        (408, FAILED),
        (413, REFUSED),
        (415, NO_ENDPOINT),
        (422, REFUSED),
        (429, (Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED")),
        (500, FAILED),
        (501, REFUSED),
        (502, FAILED),
        (503, OVERLOADED),
        (504, FAILED),
        (529, FAILED),
    ],
)
def test_a_status_alone_decides_where_the_body_says_nothing(status: int, expected: tuple[Code, str]) -> None:
    for body in (b"", b"<html>nope</html>", b"null", b"[]", b'"\xff"', b"[" * 100_000, b'{"error":null}'):
        error = refusal(status, body, wait=7.0)
        assert (error.code, error.reason) == expected
        assert error.retry_after == (7.0 if error.retryable else None)


# vLLM's Rust front end names most parameters in words alone.
NAMED = {
    "n": "sampling.n",
    "beam": "sampling.beam_search.width",
    "length-penalty": "sampling.beam_search.length_penalty",
    "logprobs-all": "output.logprobs",
    "chat-logprobs-99": "output.logprobs",
    "prompt-logprobs-99": "output.prompt_logprobs",
    "temperature": "sampling.temperature",
    "top-k": "sampling.top_k",
    "min-tokens": "stopping.min_tokens",
    "stop": "stopping.stop",
    "prompt-ids": "prompt",
    "logit-bias": "sampling.logit_bias",
    "given-ids": "output.logprobs.token_ids",
    "stop-ids": "stopping.stop_token_ids",
}


@pytest.mark.parametrize(("name", "field"), NAMED.items())
def test_a_parameter_that_is_named_in_words_is_named_as_our_field(name: str, field: str) -> None:
    status, body = captures.errors("vllm")[f"rust-err-{name}"]
    assert [violation.field for violation in refusal(status, body).violations] == [field]


@pytest.mark.parametrize(
    "message",
    ["bad stop: 'temperature must be in'", "canary must be in", "in stop: Validation error", "not requested n of 4"],
)
def test_words_in_the_middle_name_nothing(message: str) -> None:
    assert refusal(400, json.dumps({"error": {"message": message}}).encode()).violations == ()


def test_the_engines_numbers_are_told() -> None:
    status, body = captures.errors("llama-cpp")["42-err-too-long"]
    assert refusal(status, body).metadata == {"got": "6001", "limit": "2048"}


@pytest.mark.parametrize(
    ("param", "field"),
    [("temperature", "sampling.temperature"), ("body.stop", "stopping.stop"), ("body.prompt.0", "prompt")],
)
def test_a_parameter_is_named_as_our_field(param: str, field: str) -> None:
    error = refusal(400, json.dumps({"error": {"message": "x", "param": param}}).encode())
    assert [violation.field for violation in error.violations] == [field]


def test_a_quoted_prompt_does_not_make_a_refusal_an_outage() -> None:
    error = refusal(400, b'{"error":{"message":"bad input: the GPU is out of memory","type":"BadRequestError"}}')
    assert (error.code, error.reason) == REFUSED


def _said(error: EngineError) -> str:
    parts = [error.message, error.reason, str(error), repr(error.args), repr(error.violations), repr(error.resource)]
    return " ".join([*parts, repr(error.metadata)])


_SHAPES: list[Callable[[str], object]] = [
    lambda text: {"error": {"message": text, "type": text, "param": text, "code": text}},
    lambda text: {"error": {"message": text, "n_ctx": text, "n_prompt_tokens": text}},
    lambda text: {"object": "error", "message": text, "type": text, "param": text, "code": 400},
    lambda text: {"error": text},
    lambda text: {"detail": text},
    lambda text: {"detail": [{"loc": [text], "msg": text, "input": text}]},
    lambda text: {text: text},
    lambda text: [text],
    lambda text: text,
]


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("status", [302, 400, 401, 404, 422, 429, 500, 501, 503])
@pytest.mark.parametrize("words", ["", "context length ", "model not found ", "out of memory "])
def test_nothing_of_the_engines_text_is_passed_on(shape: Callable[[str], object], status: int, words: str) -> None:
    body = shape(words + CANARY)
    assert CANARY not in _said(refusal(status, json.dumps(body).encode()))
    assert CANARY not in _said(refusal(status, (words + CANARY).encode()))
    assert CANARY not in _said(in_stream(body))


@settings(deadline=None)
@given(status=st.integers(100, 599), body=st.binary(max_size=200))
def test_any_reply_becomes_an_error(status: int, body: bytes) -> None:
    assert refusal(status, body).code is not Code.OK


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_error_in_a_stream_becomes_an_error(error: object) -> None:
    assert in_stream(error).code is not Code.OK


NOW = 1_792_567_680.0  # 2026-10-21 07:28:00 UTC


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, RETRY_AFTER_DEFAULT),
        ("2", 2.0),
        (" 2 ", 2.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("-5", 0.0),
        ("999999", RETRY_AFTER_MAX),
        ("1e999", RETRY_AFTER_MAX),
        ("-inf", 0.0),
        ("nan", RETRY_AFTER_DEFAULT),
        ("soon", RETRY_AFTER_DEFAULT),
        ("", RETRY_AFTER_DEFAULT),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", RETRY_AFTER_MAX),
        ("Fri, 31 Dec 99999 23:59:59 GMT", RETRY_AFTER_DEFAULT),
        ("Wed, 21 Oct 2026 07:28:30 +9999", RETRY_AFTER_DEFAULT),
    ],
)
def test_retry_after_is_read_and_bounded(value: str | None, expected: float) -> None:
    assert retry_after(value, NOW) == expected


def test_a_date_without_a_zone_does_not_take_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after("Wed, 21 Oct 2026 07:28:30 -0000", NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@settings(deadline=None)
@given(
    st.text() | st.floats().map(str) | st.from_regex(r"\A\w{3}, \d{1,3} \w{3} \d{1,6} \d\d:\d\d:\d\d [+-]?\w{1,8}\Z")
)
def test_any_retry_after_gives_seconds_within_bounds(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert math.isfinite(seconds)
    assert 0.0 <= seconds <= RETRY_AFTER_MAX


@pytest.mark.parametrize("make", [failure.garbled, failure.cut, failure.aborted, failure.unreachable, failure.silent])
def test_what_breaks_on_the_way_may_be_tried_again(make: Callable[[], EngineError]) -> None:
    error = make()
    assert (error.code, error.retryable, error.retry_after) == (Code.UNAVAILABLE, True, 1.0)


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


WINDOWS = {
    "vLLM": "This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input tokens, which"
    " exceeds this limit even without any output tokens. (parameter=input_tokens, value=5000)",
    "vLLM, of a text": "This model's maximum context length is 4096 tokens. However, your prompt contains at least 5000"
    " input tokens.",
    "vLLM's Rust front end": "this model's maximum context length is 4096 tokens, but the prompt contains 5000 input"
    " tokens",
    "SGLang": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "SGLang, with the answer": "Requested token count exceeds the model's maximum context length of 4096 tokens. You"
    " requested a total of 5000 tokens: 4000 tokens from the input messages and 1000 for the completion.",
    "llama.cpp": "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
}


@pytest.mark.parametrize("message", WINDOWS.values(), ids=WINDOWS.keys())
def test_the_window_and_what_did_not_fit_are_read_out_of_a_sentence(message: str) -> None:
    error = refusal(400, json_bytes({"error": {"message": message, "type": "BadRequestError", "code": 400}}))
    assert (error.code, error.reason) == TOO_LONG
    assert error.metadata == {"limit": "4096", "got": "5000"}


def test_a_number_that_is_not_told_is_left_out() -> None:
    error = refusal(400, b'{"error": {"message": "over the context window"}}')
    assert ((error.code, error.reason), error.metadata) == (TOO_LONG, {})


@pytest.mark.parametrize("words", ["CUDA out of memory. Tried to", "torch.OutOfMemoryError", "KV cache is full"])
def test_an_engine_out_of_memory_says_so(words: str) -> None:
    error = refusal(500, json_bytes({"error": {"message": words}}))
    assert (error.code, error.reason, error.retryable) == (Code.RESOURCE_EXHAUSTED, "ENGINE_OUT_OF_MEMORY", True)


GRAMMARS = {
    "vLLM, schema": "Failed to transform json schema into a grammar: [10:23:00] <path>:4944: Type should be a string",
    "vLLM, regex": "Failed to transform regex into a grammar: Regex parsing error at position 3",
    "vLLM, grammar": "Invalid grammar specification.",
    "SGLang": "Failed to compile regex grammar: Regex parsing error at position 3",
    "llama.cpp": "Failed to initialize samplers: failed to parse grammar",
}


@pytest.mark.parametrize("message", GRAMMARS.values(), ids=GRAMMARS.keys())
def test_a_grammar_that_an_engine_cannot_make_is_the_constraint_s_fault(message: str) -> None:
    for error in (
        refusal(400, json_bytes({"error": {"message": message}})),
        in_stream({"message": message, "type": "BadRequestError", "param": None, "code": 400}),
    ):
        assert (error.code, error.reason) == REFUSED
        assert [one.field for one in error.violations] == ["constraint"]
