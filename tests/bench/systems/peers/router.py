"""What the three Rust routers have in common: they come from one code base."""

from collections.abc import Sequence
from random import Random

from bench.ports import Ports
from bench.system import Stage
from bench.systems.peers.environment import APART

# A model's tokenizer is looked up when an engine is found; nothing listens at this port, so nothing is fetched.
ROUTER_VARIABLES = APART | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
# Answers 200 once the router has found an engine.
READY_PATH = "/readiness"


def router_options(stage: Stage) -> Sequence[str]:
    """Returns the options that all three take. Raises ValueError if more than one process is asked for.

    One engine, so the policy that costs least; no second try, which would hide a failure; errors alone are logged.
    Their metrics stay on, as they come. A router is one process with a thread a core.
    """
    if stage.processes != 1:
        raise ValueError("a router's processes cannot share a port")
    engine = f"http://127.0.0.1:{stage.engine_port}"
    metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(Ports(Random()).take())]
    return [
        *("--host", "127.0.0.1", "--port", str(stage.port), "--worker-urls", engine),
        *("--policy", "round_robin", "--disable-retries", "--log-level", "error"),
        *metrics,
    ]
