"""The answer of an engine that imitates Ollama's chat, replayed."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Totals
from tokenwire.domain.request import Submission
from tokenwire.engines.framing import LineSplitter
from tokenwire.engines.ollama.answer import Answer
from unit.engines import captures
from unit.engines.ollama.running import HI, job

BODY = captures.body("ollama", "sglang_chat.txt")


@given(st.lists(st.integers(1, len(BODY) - 1), max_size=8))
def test_sglangs_imitation_is_read_wherever_it_is_cut(places: list[int]) -> None:
    splitter, answer = LineSplitter(), Answer(job(Submission(messages=HI)), None)
    told: list[Generated] = []
    ends = [0, *sorted(set(places)), len(BODY)]
    for start, end in pairwise(ends):
        answer.read(splitter.feed(BODY[start:end]), told)
    # It wrote three tokens without text, and counts nothing.
    assert told == [ChoiceDone(choice=0, finish_reason=FinishReason.STOP), Totals()]
    assert answer.done
