"""The shapes in which servers tell log probabilities."""

import json

import msgspec
import pytest

from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import TokenLogprob
from tokenwire.engines.openai.logprobs import Place, best, places, without_ids

LEGACY = {
    "tokens": [" a", "b"],
    "token_logprobs": [-0.5, None],
    "top_logprobs": [{" c": -2.0, " a": -0.5}, None],
    "text_offset": [0, 2],
}
CHAT = {
    "content": [
        {"token": " a", "logprob": -0.5, "bytes": [32, 97], "top_logprobs": [{"token": " c", "logprob": -2.0}]},
        # llama.cpp tells ids, and no candidates where none were asked for.
        {"id": 7, "token": "b", "logprob": -1, "top_logprobs": []},
    ],
    "refusal": None,
}


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def test_the_legacy_object_and_the_list_of_chats_are_read() -> None:
    assert places(_raw(LEGACY)) == [Place(" a", -0.5, [(" c", -2.0), (" a", -0.5)]), Place("b", None, [])]
    assert places(_raw(CHAT)) == [Place(" a", -0.5, [(" c", -2.0)]), Place("b", -1, [])]


def test_a_legacy_object_may_lack_its_candidates() -> None:
    assert places(_raw({"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": None})) == [Place("a", -1.0, [])]
    assert places(_raw({"tokens": ["a"]})) == [Place("a", None, [])]


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b'{"content":null}', b'{"content":[]}', b'{"tokens":[]}'])
def test_what_tells_nothing_is_nothing(raw: bytes) -> None:
    assert places(msgspec.Raw(raw)) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"7",
        b'{"content":[{"logprob":-1}]}',
        b'{"content":[{"token":"a","logprob":"x"}]}',
        b'{"tokens":["a"],"token_logprobs":[]}',
        b'{"tokens":["a"],"top_logprobs":[{},{}]}',
        b'{"tokens":["\xff"]}',
    ],
)
def test_another_shape_is_not_the_protocol(raw: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        places(msgspec.Raw(raw))
    assert caught.value.reason == "UPSTREAM_PROTOCOL"


def test_the_best_come_first_and_no_more_than_asked_for() -> None:
    top = [("b", -3.0), ("a", -1.0), ("c", -2.0)]
    assert best(top, 2) == [("a", -1.0), ("c", -2.0)]
    assert best(top, 0) == []
    assert best(top, None) == [("a", -1.0), ("c", -2.0), ("b", -3.0)]


def test_tokens_without_ids_have_their_text() -> None:
    assert without_ids([Place("x", -4.0, [("x", -4.0), ("a", -1.0), ("b", -2.0)])], 2) == (
        TokenLogprob(
            token_id=None,
            token="x",
            logprob=-4.0,
            top=(
                TokenLogprob(token_id=None, token="a", logprob=-1.0),
                TokenLogprob(token_id=None, token="b", logprob=-2.0),
            ),
        ),
    )
