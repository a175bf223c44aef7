"""Log probabilities, as a request asks for them."""

from collections.abc import Awaitable, Callable, Sequence

from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.request import Logprobs
from tokenwire.engines.llamacpp.wire import Candidate, Chosen


class LogprobReader:
    """Picks what was asked for out of what llama.cpp tells: the most probable tokens, as many as the request sent.

    Args:
        asked: what the request asks for.
        name: tells the text of one token.
    """

    def __init__(self, asked: Logprobs, name: Callable[[int], Awaitable[str]]) -> None:
        self._top_n = None if asked.all else asked.top_n or 0
        self._given = asked.token_ids
        self._wanted = frozenset(asked.token_ids)
        self._name = name

    async def read(self, told: Sequence[Chosen]) -> tuple[TokenLogprob, ...]:
        """Returns the log probabilities of the tokens that were chosen."""
        return tuple([await self._one(chosen) for chosen in told])

    async def _one(self, chosen: Chosen) -> TokenLogprob:
        top = chosen.top_logprobs
        text = next((one.token for one in top if one.id == chosen.id), None)
        found = {one.id: _logprob(one) for one in top if one.id in self._wanted} if self._wanted else {}
        return TokenLogprob(
            token_id=chosen.id,
            token=await self._name(chosen.id) if text is None else text,
            logprob=chosen.logprob,
            top=tuple(map(_logprob, top if self._top_n is None else top[: self._top_n])),
            given=tuple(found[one] for one in self._given if one in found),
        )


def _logprob(one: Candidate) -> TokenLogprob:
    return TokenLogprob(token_id=one.id, token=one.token, logprob=one.logprob)
