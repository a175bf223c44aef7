"""The files of `tokenwire batch`: requests line by line, and results that a later run goes on with."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.cli.batch_lines import Line, Lines
from tokenwire.cli.batch_results import Results, result_of
from tokenwire.cli.failure import CommandError
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchItemDone
from tokenwire.v1.event_pb2 import TokenLogprob
from tokenwire.v1.finish_pb2 import FINISH_REASON_STOP_SEQUENCE, STATUS_CODE_NOT_FOUND, MatchedStop, RunError, Usage
from tokenwire.v1.run_pb2 import Choice, RunResult, ToolCall


async def read(path: Path, *, model: str = "", skipped: tuple[str, ...] = ()) -> list[Line]:
    found = []
    with Lines(str(path), model=model, skips=lambda item_id: item_id in skipped) as lines:
        while (line := await lines.next()) is not None:
            found.append(line)
        assert lines.total == len(found)
    return found


def done(item_id: str, *, well: bool) -> BatchEvent:
    if well:
        result = RunResult(choices=[Choice(text="a\nb é\x9b31m")])
        return BatchEvent(item_done=BatchItemDone(item_id=item_id, run_id="run", result=result))
    error = RunError(code=STATUS_CODE_NOT_FOUND, reason="MODEL_NOT_FOUND", message="no model")
    return BatchEvent(item_done=BatchItemDone(item_id=item_id, error=error))


@pytest.mark.asyncio
async def test_a_line_is_a_prompt_or_a_chat_and_has_an_id(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"id": "a", "prompt": "hi", "stopping": {"maxTokens": 3}, "model": "own"}\n'
        "\n"
        '{"messages": [{"content": "hi"}], "stopping": {"max_tokens": 3}}\r\n'
        '{"id": 7, "prompt_ids": {"ids": [1]}}',
        encoding="utf-8",
    )
    lines = await read(path, model="other")
    assert [line.item_id for line in lines] == ["a", "3", "7"]
    items = [line.item for line in lines if line.item is not None]
    assert [item.WhichOneof("request") for item in items] == ["generate", "chat", "generate"]
    assert [item.generate.model or item.chat.model for item in items] == ["own", "other", "other"]
    assert items[0].generate.stopping.max_tokens == items[1].chat.stopping.max_tokens == 3
    assert list(items[2].generate.prompt_ids.ids) == [1]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nope", "line 1: no JSON"),
        ("\xff", "line 1: no JSON"),
        ("[1]", "line 1: no JSON object"),
        ("[" * 100_000, "line 1: nested too deeply"),
        ('{"promt": "hi"}', 'has no field named "promt"'),
        ('{"prompt": 3}', "line 1: "),
        ('{"id": true, "prompt": "hi"}', "line 1: the id is no text"),
        ('{"id": "", "prompt": "hi"}', "line 1: the id is no text"),
        (json.dumps({"id": "é" * 65, "prompt": "hi"}), "line 1: the id has more than 128 bytes"),
    ],
)
async def test_a_line_that_is_wrong_is_told_apart(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line.encode("latin-1") + b'\n{"prompt": "hi"}\n')
    wrong, right = await read(path)
    assert said in wrong.wrong
    assert "\n" not in wrong.wrong
    assert (wrong.item, right.wrong, right.item_id) == (None, "", "2")


@pytest.mark.asyncio
async def test_an_id_that_comes_twice_is_wrong_and_what_is_skipped_does_not_come(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"id": "{name}", "prompt": "hi"}}\n' for name in "abcb"), encoding="utf-8")
    assert [(line.item_id, line.wrong) for line in await read(path, skipped=("a", "c"))] == [
        ("b", ""),
        ("b", "line 4: an earlier line has the same id"),
    ]


@given(cut=st.integers(0, 400), order=st.lists(st.booleans(), min_size=1, max_size=5))
def test_results_that_were_cut_anywhere_are_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, cut: int, order: list[bool]
) -> None:
    path = tmp_path_factory.mktemp("results") / "out.jsonl"
    with Results(path, as_json=False, retry_failed=False) as results:
        for number, well in enumerate(order):
            results.event(done(str(number), well=well))
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    lines = whole.splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if sum(map(len, lines[: number + 1])) - 1 <= cut]
    with Results(path, as_json=False, retry_failed=False) as results:
        assert [results.skips(str(number)) for number in range(len(order))] == [
            number < len(kept) for number in range(len(order))
        ]
        assert results.failed == order[: len(kept)].count(False)
        results.event(done("next", well=True))
    ids = [json.loads(line)["id"] for line in path.read_bytes().splitlines()]
    assert ids == [*(str(number) for number in range(len(kept))), "next"]


def test_what_has_failed_is_asked_again_if_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with Results(path, as_json=False, retry_failed=False) as results:
        results.event(done("a", well=True))
        results.event(done("b", well=False))
    with Results(path, as_json=False, retry_failed=True) as results:
        assert (results.skips("a"), results.skips("b"), results.failed, results.skipped) == (True, False, 1, 1)
        results.event(done("b", well=True))
        assert results.failed == 0
    with Results(path, as_json=False, retry_failed=True) as results:
        assert (results.skips("b"), results.failed) == (True, 0)


def test_a_file_that_has_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "a"}\n{"prompt": "hi"}\n', encoding="utf-8")
    with (
        pytest.raises(CommandError, match="is no result of a batch"),
        Results(path, as_json=False, retry_failed=False),
    ):
        raise AssertionError("never entered")
    assert path.read_text(encoding="utf-8") == '{"id": "a"}\n{"prompt": "hi"}\n'


def test_a_result_tells_all_that_the_answer_has() -> None:
    choice = Choice(
        text="hi",
        reasoning="because",
        tool_calls=[ToolCall(id="t", name="f", arguments="{}")],
        finish_reason=FINISH_REASON_STOP_SEQUENCE,
        matched_stop=MatchedStop(text="x"),
        token_ids=[1],
        logprobs=[TokenLogprob(token="hi", logprob=-0.5)],
    )
    result = RunResult(choices=[choice], usage=Usage(prompt_tokens=1), prompt_logprobs=[TokenLogprob(token="p")])
    assert result_of(BatchItemDone(item_id="a", run_id="run", result=result)) == {
        "id": "a",
        "run_id": "run",
        "text": "hi",
        "reasoning": "because",
        "tool_calls": [{"id": "t", "name": "f", "arguments": "{}"}],
        "finish_reason": "stop_sequence",
        "matched_stop": {"text": "x"},
        "token_ids": [1],
        "logprobs": [{"token": "hi", "logprob": -0.5}],
        "usage": {"prompt_tokens": 1, "cached_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0},
        "prompt_logprobs": [{"token": "p"}],
    }
    two = result_of(BatchItemDone(item_id="a", result=RunResult(choices=[Choice(), Choice(index=1, text="b")])))
    assert [(one["index"], one["text"]) for one in two["choices"]] == [(0, ""), (1, "b")]
