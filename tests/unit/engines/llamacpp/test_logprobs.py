"""Log probabilities, as a request asks for them."""

import pytest

from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.request import Logprobs
from tokenwire.engines.llamacpp.logprobs import LogprobReader
from tokenwire.engines.llamacpp.wire import Candidate, Chosen

TOLD = Chosen(
    id=3, logprob=-2.0, top_logprobs=[Candidate(id=one, token=f"t{one}", logprob=-float(one)) for one in range(5)]
)


async def name(token_id: int) -> str:
    return f"<{token_id}>"


async def read(asked: Logprobs, told: Chosen = TOLD) -> TokenLogprob:
    (one,) = await LogprobReader(asked, name).read([told])
    return one


def ids(told: tuple[TokenLogprob, ...]) -> list[int | None]:
    return [one.token_id for one in told]


@pytest.mark.asyncio
@pytest.mark.parametrize("top_n", [None, 0, 2, 5])
async def test_as_many_of_the_most_probable_are_told_as_asked_for(top_n: int | None) -> None:
    told = await read(Logprobs(top_n=top_n))
    assert ids(told.top) == list(range(top_n or 0))
    assert (told.token_id, told.token, told.logprob, told.given) == (3, "t3", -2.0, ())


@pytest.mark.asyncio
async def test_tokens_that_were_asked_for_come_in_the_order_of_the_request() -> None:
    told = await read(Logprobs(token_ids=(4, 0, 4), top_n=1))
    assert ids(told.given) == [4, 0, 4]
    assert [one.logprob for one in told.given] == [-4.0, 0.0, -4.0]
    assert ids(told.top) == [0]


@pytest.mark.asyncio
async def test_all_are_the_whole_vocabulary() -> None:
    assert len((await read(Logprobs(all=True, top_n=1))).top) == 5


@pytest.mark.asyncio
async def test_the_text_of_a_token_that_is_not_among_the_most_probable_is_asked_for() -> None:
    assert (await read(Logprobs(top_n=1), Chosen(id=9, logprob=-9.0))).token == "<9>"
