"""How busy vLLM is."""

import pytest

from tokenwire.engines.status import Load
from tokenwire.engines.vllm.metrics import load
from unit.engines import captures

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"


def test_a_capture_tells_how_busy_it_is() -> None:
    text = captures.body("vllm", "74-metrics.resp").decode()
    assert load(text) == Load(running=0, waiting=0)
    busy = text.replace(f'{RUNNING}{{engine="0",model_name="smollm2"}} 0.0', f'{RUNNING}{{engine="0"}} 3.0')
    assert load(busy) == Load(running=3, waiting=0)


def test_the_engines_of_a_server_are_summed_and_reasons_are_not() -> None:
    text = (
        f'# HELP {RUNNING} {RUNNING} 9\n{RUNNING}{{engine="0"}} 2.0\n{RUNNING}{{engine="1"}} 3.0\n'
        f'{WAITING}{{engine="0",model_name="a b}} 7"}} 1.0\n{WAITING}_by_reason{{reason="capacity"}} 5.0\n'
        f"{WAITING} 4\n"
    )
    assert load(text) == Load(running=5, waiting=5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        f"{RUNNING} 1\n",
        f"{RUNNING}\n{WAITING}\n",
        f"{RUNNING}{{ 1\n{WAITING}{{\n",
        f"{RUNNING} x\n{WAITING} y\n",
        f"{RUNNING} NaN\n{WAITING} 1\n",
        f"{RUNNING} +Inf\n{WAITING} 1\n",
    ],
)
def test_what_does_not_tell_it_tells_nothing(text: str) -> None:
    assert load(text) is None
