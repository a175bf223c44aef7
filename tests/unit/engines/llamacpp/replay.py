"""Answers to a job, replayed from captures."""

import random
from collections.abc import Sequence

from tokenwire.domain.cursor import Channel
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.framing import EventSplitter
from tokenwire.engines.llamacpp.answer import Answer
from tokenwire.engines.llamacpp.channels import Layout
from unit.engines import captures

# The ids of these characters in the captures' vocabulary; é has an id for each of its bytes in that answer.
EMOJI_IDS = {"🦜": (10813, 116, 246), "☃": (173, 242, 221), "é": (142, 119)}
PROMPT_IDS = (504, 3575)


class FakeVocabulary:
    """Knows the tokens of some texts; counts what it is asked."""

    def __init__(self, ids: dict[str, tuple[int, ...]] | None = None) -> None:
        self.known = ids or {}
        self.asked: list[str] = []

    async def ids(self, text: str) -> tuple[int, ...]:
        self.asked.append(text)
        return self.known.get(text, ())

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        texts = {40: "8", 1: "<|im_start|>"}
        return "".join(texts[one] for one in token_ids)

    async def name(self, token_id: int) -> str:
        return f"<{token_id}>"


def answer_to(
    submission: Submission, max_tokens: int, vocabulary: FakeVocabulary | None = None, layout: Layout | None = None
) -> Answer:
    job = Job(run_id="run", model="m", submission=submission, prompt=Prompt(text="The city", token_ids=PROMPT_IDS))
    return Answer(job, max_tokens, vocabulary or FakeVocabulary(), layout or Layout())


async def replay(
    name: str,
    submission: Submission,
    max_tokens: int,
    vocabulary: FakeVocabulary | None = None,
    seed: int = 0,
    layout: Layout | None = None,
) -> list[Generated]:
    """Reads a capture in cuts at random bytes, up to the end of the answer."""
    rng = random.Random(seed)
    stream = captures.body("llama-cpp", name)
    answer = answer_to(submission, max_tokens, vocabulary, layout)
    splitter = EventSplitter()
    batch: list[Generated] = []
    while stream and not answer.done:
        size = rng.randint(1, 200)
        await answer.read(splitter.feed(stream[:size]), batch)
        stream = stream[size:]
    assert answer.done
    return batch


def pieces(batch: list[Generated], choice: int = 0) -> list[Piece]:
    return [item for item in batch if isinstance(item, Piece) and item.channel.choice == choice]


def text(batch: list[Generated], choice: int = 0) -> str:
    return "".join(piece.text for piece in pieces(batch, choice))


def channels(batch: list[Generated]) -> dict[Channel, str]:
    """Returns the text of each channel that has any."""
    found: dict[Channel, str] = {}
    for item in batch:
        if isinstance(item, Piece) and item.text:
            found[item.channel] = found.get(item.channel, "") + item.text
    return found


def ids(batch: list[Generated], choice: int = 0) -> list[int]:
    return [one for piece in pieces(batch, choice) for one in piece.token_ids]


def done(batch: list[Generated]) -> dict[int, ChoiceDone]:
    return {item.choice: item for item in batch if isinstance(item, ChoiceDone)}
