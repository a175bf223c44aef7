"""What simulated clients ask for."""

import random
from dataclasses import dataclass

from simulation import model
from tokenwire.v1.generate_service_pb2 import GenerateRequest

# No prompt is the beginning of another one.
PROMPTS = tuple(f"{kind}{number}|" for kind in ("p", "plain") for number in range(30))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, and what decides its answer."""

    request: GenerateRequest
    asked: model.Asked

    @property
    def grace(self) -> float:
        """For how many seconds its run goes on without a reader."""
        return self.request.run.orphan_grace.ToMilliseconds() / 1000

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.run.request_id


def wanted(rng: random.Random, number: int, *, grace: float = 30.0, plain: bool = False) -> Wanted:
    """Draws a request.

    Args:
        rng: decides.
        number: of the request in its schedule.
        plain: its answer is full of what may become a stop string.
        grace: seconds its run goes on without a reader.
    """
    prompt = rng.choice([one for one in PROMPTS if model.is_plain(one) or not plain])
    n = rng.choice((1, 1, 1, 2, 3))
    max_tokens = rng.choice((None, None, None, None, None, 25) if plain else (None, None, 1, 5, 10, 20))
    stop: tuple[str, ...] = ()
    include_stop = False
    if max_tokens is None and (plain or rng.random() < 0.7):
        plain = model.is_plain(prompt)
        stop = tuple(
            rng.sample(model.STOPS if plain else ("b a", " roof", "水", " river\n", "שלום "), rng.choice((1, 2)))
        )
        include_stop = rng.random() < 0.5
    request = GenerateRequest(prompt=prompt)
    request.run.request_id = f"request{number}"
    request.run.orphan_grace.FromMilliseconds(int(grace * 1000))
    if n > 1:
        request.sampling.n = n
    if max_tokens is not None:
        request.stopping.max_tokens = max_tokens
    request.stopping.stop.extend(stop)
    if include_stop:
        request.stopping.include_stop = True
    request.output.token_ids = rng.random() < 0.5
    asked = model.Asked(prompt=prompt, n=n, max_tokens=max_tokens, stop=stop, include_stop=include_stop)
    return Wanted(request, asked)
