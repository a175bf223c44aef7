"""The order of the interceptors, and their one shape."""

import random
import time
from typing import Any, cast

import pytest
from opentelemetry.trace import NoOpTracer

from tokenwire.domain.request import Delivery
from tokenwire.interceptors.admission import Admission
from tokenwire.interceptors.interceptor import stacked
from tokenwire.interceptors.stack import stack
from tokenwire.transport.call import Call, Handler


def test_the_guard_is_outermost_and_nothing_is_read_before_it_is_validated() -> None:
    admission = Admission(1, rng=random.Random(0))
    order = [type(one).__name__ for one in stack(NoOpTracer(), time.monotonic, admission, lambda _: Delivery())]
    assert order == ["Guard", "Telemetry", "Admission", "Validation", "DeliveryOptions"]


class Noting:
    """Notes its letter on the way in and on the way out."""

    def __init__(self, letter: str, notes: list[str]) -> None:
        self.letter = letter
        self.notes = notes

    async def around(self, request: Any, call: Call, proceed: Handler) -> Any:
        self.notes.append(self.letter)
        try:
            return await proceed(request + self.letter, call)
        finally:
            self.notes.append(self.letter.upper())


@pytest.mark.asyncio
async def test_the_first_interceptor_is_outermost_on_the_way_in_and_out() -> None:
    notes: list[str] = []

    async def handler(request: Any, call: Call) -> Any:
        notes.append(request)
        return "answer"

    layered = stacked(handler, (Noting("a", notes), Noting("b", notes)))
    assert await layered("", cast("Call", None)) == "answer"
    assert notes == ["a", "b", "ab", "B", "A"]
