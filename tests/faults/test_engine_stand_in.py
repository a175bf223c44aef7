"""The stand-in is what the fault tests rest on: its answer is the same from wherever it is continued."""

from hypothesis import given
from hypothesis import strategies as st

from faults.engine import detokenize, expected, next_id, tokenize


@given(st.text(max_size=40), st.integers(0, 120))
def test_an_answer_continued_from_any_token_is_the_unbroken_one(prompt: str, cut: int) -> None:
    ids = tokenize(prompt)
    assert detokenize(ids) == prompt
    whole = list(ids)
    for _ in range(120):
        whole.append(next_id(whole))
    again = whole[: len(ids) + cut]
    while len(again) < len(whole):
        again.append(next_id(again))
    assert again == whole
    text = detokenize(whole[len(ids) :])
    assert expected(prompt, 120).startswith(text.rstrip("\ufffd"))
