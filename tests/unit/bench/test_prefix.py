"""Prefix reuse: its texts, its arithmetic, and its requests to an engine that remembers every prompt."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise, takewhile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from bench.prefix import __main__ as command
from bench.prefix import serving
from bench.prefix.measuring import POLICY, TRIES, Measuring, Plan, VoidError
from bench.prefix.reading import Case, Reading, Reuse
from bench.prefix.serving import tokenwire
from bench.prefix.tables import CLAIM_LONG, CLAIM_SIMILAR, long_turns, prefix_tables, similar, verdict
from bench.prefix.texts import WORDS, Author
from bench.report import markdown
from harness.service import service
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Job, Piece, PromptRead, Totals
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step
from tokenwire_client import AsyncClient
from unit.bench.fabricated import whole

ANSWER = "so it was"


class Memory:
    """The script of an engine that remembers every prompt, and takes a microsecond for each token that is new to it.

    A token is a byte.

    Args:
        mute: so many answers, from the first on, have no text.
    """

    def __init__(self, mute: int = 0) -> None:
        self.prompts: list[bytes] = []
        self.seconds = 0.0
        self._mute = mute

    def now(self) -> float:
        return self.seconds

    def __call__(self, job: Job) -> Sequence[Step]:
        assert job.prompt.token_ids is not None
        prompt = bytes(job.prompt.token_ids)
        cached = max((common(prompt, other) for other in self.prompts), default=0)
        self.prompts.append(prompt)
        self.seconds += (len(prompt) - cached) / 1e6
        read = PromptRead(prompt_tokens=len(prompt), cached_tokens=cached)
        piece = Piece(channel=Channel(0), text=ANSWER, token_ids=(1, 2, 3), token_count=3)
        answer = [Emit((piece,))]
        if self._mute:
            self._mute -= 1
            answer = []
        done = ChoiceDone(choice=0, finish_reason=FinishReason.STOP)
        tokens = 3 if answer else 0
        totals = Totals(prompt_tokens=len(prompt), cached_tokens=cached, output_tokens=tokens)
        return [Emit((read,)), *answer, Emit((done, totals))]


def common(one: bytes, other: bytes) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


async def measured(memory: Memory, plan: Plan) -> Measuring:
    engine = ScriptedEngine(script=memory, context_window=1_000_000)
    async with service(engine) as running, AsyncClient(running.address, policy=POLICY) as client:
        measuring = Measuring(client, rng=random.Random(7), clock=memory.now)
        await measuring.run(plan)
    return measuring


def reuse(measuring: Measuring) -> Reuse:
    return Reuse(engine="made up 1", model="m", readings=measuring.readings, void=measuring.void)


def reading(case: Case, size: int, repetition: int, ttft_us: float, cached: int = 0) -> Reading:
    return Reading(
        case=case, size=size, repetition=repetition, ttft_us=ttft_us, prompt_tokens=1000, cached_tokens=cached
    )


def test_words_are_told_apart_and_hold_no_space() -> None:
    assert len(set(WORDS)) == len(WORDS) > 200
    assert all(word.isalpha() and word.islower() for word in WORDS)


@hypothesis.given(st.integers(1, 400), st.integers())
def test_text_has_the_words_that_were_asked_for(words: int, seed: int) -> None:
    text = Author(random.Random(seed)).text(words)
    assert len(text.split(" ")) == words


@hypothesis.given(st.integers(1, 400), st.sampled_from([0.0, 0.2, 0.5, 0.8, 0.99, 1.0]), st.integers())
def test_similar_text_keeps_exactly_its_share_of_words_and_the_length(words: int, share: float, seed: int) -> None:
    author = Author(random.Random(seed))
    text = author.text(words)
    one, other = text.split(" "), author.like(text, share).split(" ")
    kept = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=True))))
    assert kept == round(words * share)


def test_first_word_of_a_similar_text_that_is_not_kept_is_always_another_one() -> None:
    author = Author(random.Random(5))
    for _ in range(3000):
        text = author.text(2)
        kept, other = author.like(text, 0.5).split(" ")
        assert kept == text.split(" ")[0]
        assert other != text.split(" ")[1]


def test_texts_of_one_author_are_new_each_time() -> None:
    author = Author(random.Random(3))
    beginnings = {tuple(author.text(50).split(" ")[:4]) for _ in range(200)}
    assert len(beginnings) == 200


@pytest.mark.asyncio
async def test_prompts_are_cold_then_known_then_known_to_their_share() -> None:
    memory = Memory()
    measuring = await measured(memory, Plan(repetitions=3, words=(50, 200), turns=1, opening_words=10))
    found = reuse(measuring)
    for words in (50, 200):
        for repetition in range(1, 4):
            cold, repeated, shared = (
                next(one for one in found.of(case, words) if one.repetition == repetition)
                for case in (Case.COLD, Case.REPEATED, Case.SHARED)
            )
            assert cold.cached_tokens < 0.1 * cold.prompt_tokens
            assert repeated.cached_tokens == repeated.prompt_tokens == cold.prompt_tokens
            assert 0.7 < shared.cached_tokens / cold.prompt_tokens < 0.9
            # The engine's time is what the first token waits for, and nothing else.
            assert cold.ttft_us == pytest.approx(cold.prompt_tokens - cold.cached_tokens, abs=0.1)
            assert shared.ttft_us == pytest.approx(shared.prompt_tokens - shared.cached_tokens, abs=0.1)
            assert repeated.ttft_us == pytest.approx(0, abs=0.1)
    assert found.sizes(Case.COLD) == [50, 200]
    assert all(0.1 < ratio < 0.35 for ratio in similar(found))
    assert len(similar(found)) == 6


@pytest.mark.asyncio
async def test_conversation_grows_by_its_turns_and_is_compared_with_an_unknown_one_of_its_length() -> None:
    plan = Plan(repetitions=2, words=(5,), opening_words=60, turn_words=20, turns=8)
    found = reuse(await measured(Memory(), plan))
    for repetition in (1, 2):
        turns, others = (
            [next(one for one in found.of(case, turn) if one.repetition == repetition) for turn in range(1, 9)]
            for case in (Case.TURN, Case.COLD_TURN)
        )
        for before, after in pairwise(turns):
            assert after.prompt_tokens > before.prompt_tokens + 100
            # All but the words that ask for an answer.
            assert before.prompt_tokens - 20 <= after.cached_tokens <= before.prompt_tokens
        for turn, other in zip(turns[1:], others[1:], strict=True):
            assert other.cached_tokens < 0.1 * other.prompt_tokens
            assert other.prompt_tokens == pytest.approx(turn.prompt_tokens, rel=0.25)
    assert found.sizes(Case.TURN) == list(range(1, 9))
    assert len(long_turns(found)) == 2 * 4
    assert max(long_turns(found)) < 0.5


@pytest.mark.asyncio
async def test_conversation_tells_the_engine_its_own_answers() -> None:
    memory = Memory()
    await measured(memory, Plan(repetitions=1, words=(5,), opening_words=30, turn_words=5, turns=3))
    assert max(prompt.count(ANSWER.encode()) for prompt in memory.prompts) == 2


@pytest.mark.asyncio
async def test_warm_up_is_not_counted() -> None:
    memory = Memory()
    measuring = await measured(memory, Plan(repetitions=1, words=(5,), turns=1))
    assert [one.repetition for one in measuring.readings] == [1] * 5
    assert len(memory.prompts) > len(measuring.readings)


@pytest.mark.asyncio
async def test_answer_without_text_is_void_and_another_text_is_tried() -> None:
    plan = Plan(repetitions=1, words=(5,), turns=1)
    memory = Memory()
    await measured(memory, plan)
    # The last five are those that count; the warm-up comes before them.
    measuring = await measured(_MuteAfter(len(memory.prompts) - 5), plan)
    assert measuring.void == ["an answer without text"]
    assert sorted(one.case for one in measuring.readings) == sorted(Case)


@pytest.mark.asyncio
async def test_engine_that_never_answers_with_text_is_given_up() -> None:
    with pytest.raises(VoidError, match=f"{TRIES} times in a row: an answer without text"):
        await measured(Memory(mute=1000), Plan(repetitions=1, words=(5,), turns=1))


class _MuteAfter(Memory):
    """Answers without text once, after so many requests."""

    def __init__(self, requests: int) -> None:
        super().__init__()
        self._requests = requests

    def __call__(self, job: Job) -> Sequence[Step]:
        if len(self.prompts) == self._requests:
            self._requests = -1
            self._mute = 1
        return super().__call__(job)


def test_ratio_to_cold_is_taken_within_each_repetition() -> None:
    found = Reuse(
        engine="e",
        model="m",
        readings=[
            reading(Case.COLD, 100, 1, 1000.0),
            reading(Case.SHARED, 100, 1, 400.0),
            reading(Case.COLD, 100, 2, 4000.0),
            reading(Case.SHARED, 100, 2, 2000.0),
            # Its length was never asked cold in this repetition.
            reading(Case.SHARED, 100, 3, 9.0),
            reading(Case.COLD, 200, 3, 9.0),
        ],
    )
    assert found.to_cold(Case.SHARED, 100) == {1: 0.4, 2: 0.5}
    assert found.ttft_us(Case.SHARED, 100) == {1: 400.0, 2: 2000.0, 3: 9.0}
    assert similar(found) == [0.4, 0.5]


def test_turns_are_compared_with_unknown_conversations_and_the_long_ones_are_claimed() -> None:
    readings = [reading(Case.TURN, turn, 1, 100.0) for turn in range(1, 9)]
    readings += [reading(Case.COLD_TURN, turn, 1, 100.0 * turn) for turn in range(1, 9)]
    assert long_turns(Reuse(engine="e", model="m", readings=readings)) == [1 / 5, 1 / 6, 1 / 7, 1 / 8]


@pytest.mark.parametrize(
    ("ratios", "told"),
    [
        ([0.3, 0.31, 0.9], "kept"),
        ([0.5], "kept"),
        ([0.29], "kept, and better"),
        ([0.2, 0.51, 0.6], "not kept"),
        ([], "not measured"),
    ],
)
def test_median_decides_whether_a_claim_is_kept(ratios: list[float], told: str) -> None:
    assert verdict(ratios, CLAIM_SIMILAR) == told


def test_tables_tell_claims_and_each_engine_and_what_is_missing() -> None:
    readings = [
        reading(Case.COLD, 1000, 1, 1e6),
        reading(Case.REPEATED, 1000, 1, 5e4, cached=896),
        reading(Case.TURN, 5, 1, 3e5, cached=800),
        reading(Case.COLD_TURN, 5, 1, 1e6),
    ]
    text = prefix_tables([Reuse(engine="vLLM 9", model="tiny", readings=readings, void=["an answer without text"])])
    assert CLAIM_LONG == (0.1, 0.2)
    assert "| a prompt whose first 80 % are known | 0.3-0.5 | vLLM 9 | - | not measured |" in text
    assert "| turn 5 of a conversation and later | 0.1-0.2 | vLLM 9 | 0.30 | not kept |" in text
    assert "### vLLM 9, tiny" in text
    assert "| the same again | 1000 | 896 | 50 | 0.050 |" in text
    assert "| the first 80 % the same | - | - | - | - |" in text
    assert "| turn 5 | 1000 | 800 | 300 | 0.30 |" in text
    assert "Asked again with other texts once: an answer without text." in text


def test_engine_that_was_given_up_keeps_what_was_measured_and_says_why() -> None:
    given_up = Reuse(engine="e", model="m", readings=[reading(Case.COLD, 1000, 1, 1e6)], given_up="too slow")
    text = prefix_tables([given_up])
    assert "| cold | 1000 | 0 | 1,000 | 1 |" in text
    assert "Given up before the end: too slow." in text


@pytest.mark.parametrize(("mute", "code"), [(0, 0), (1000, 1)])
def test_command_writes_what_was_measured_and_keeps_other_engines_if_it_is_told_to(
    mute: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def scripted(options: Sequence[str]) -> AsyncIterator[tuple[AsyncClient, str]]:
        assert "--slots" in options
        engine = ScriptedEngine(script=Memory(mute), context_window=1_000_000)
        async with service(engine) as running, AsyncClient(running.address, policy=POLICY) as client:
            yield client, "tiny"

    monkeypatch.setattr(command, "tokenwire", scripted)
    for name in ("VLLM_BASE_URL", "SGLANG_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "prefix.json"
    other = Reuse(engine="vLLM 9", model="m", readings=[])
    path.write_bytes(msgspec.json.encode({"vllm": other}))
    arguments = ["--llamacpp", "--add", "--out", str(path), "--repetitions", "2", "--words", "5", "--turns", "1"]
    assert command.main(arguments) == code
    found = msgspec.json.decode(path.read_bytes(), type=dict[str, Reuse])
    assert found["vllm"] == other
    assert len(found["llamacpp"].readings) == (0 if mute else 10)
    assert bool(found["llamacpp"].given_up) is bool(mute)
    assert "llama.cpp" in capsys.readouterr().out


def test_report_shows_what_the_json_file_holds(tmp_path: Path) -> None:
    found = {"vllm": Reuse(engine="vLLM 9", model="tiny", readings=[reading(Case.COLD, 1000, 1, 1e6)])}
    path = tmp_path / "prefix.json"
    path.write_bytes(msgspec.json.encode(found))
    text = markdown(whole(prefix=json.loads(path.read_bytes())))
    assert "### vLLM 9, tiny" in text.split("## Prefix reuse")[1]


def test_command_without_an_engine_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_BASE_URL", "SGLANG_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match="no engine: give --vllm URL, --sglang URL or --llamacpp"):
        command.main([])


@pytest.mark.asyncio
async def test_tokenwire_is_started_before_an_engine_and_ended_afterwards() -> None:
    async with tokenwire(["--engine", "scripted"]) as (client, model):
        assert model == "scripted"
        measuring = Measuring(client, rng=random.Random(1))
        await measuring.run(Plan(repetitions=1, words=(5,), turns=1, opening_words=5))
        target = client.target
    assert all(one.ttft_us > 0 for one in measuring.readings)
    assert len(measuring.readings) == 5
    with pytest.raises(OSError, match="refused"):
        await _connect(target)


@pytest.mark.asyncio
async def test_tokenwire_that_does_not_start_is_told() -> None:
    with pytest.raises(RuntimeError, match="tokenwire ended with 1 before it served"):
        async with tokenwire(["--engine", "nonsense"]):
            pass


@pytest.mark.asyncio
async def test_tokenwire_without_a_model_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "START_SECONDS", 0.01)
    with pytest.raises(RuntimeError, match="no model that answers"):
        async with tokenwire(["--engine", "vllm=http://127.0.0.1:1"]):
            pass


async def _connect(target: str) -> None:
    host, port = target.split(":")
    await asyncio.open_connection(host, int(port))
