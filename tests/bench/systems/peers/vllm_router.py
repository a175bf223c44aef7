"""vllm-router (Rust), vLLM's own."""

from bench.system import Dialect, Launch, Stage, Wire
from bench.systems.peers.chat import CHAT_PATH, chat_request
from bench.systems.peers.environment import PeerEnvironment
from bench.systems.peers.router import READY_PATH, ROUTER_VARIABLES, router_options


class VllmRouter:
    """vllm-router, in front of an engine's HTTP server."""

    name = "vllm-router"
    wire = Wire.SSE
    path = CHAT_PATH
    dialect = Dialect.CHAT

    def __init__(self, environment: PeerEnvironment | None = None) -> None:
        self._environment = environment or PeerEnvironment("vllm-router")

    def absent(self) -> str:
        """Returns why it cannot be measured here; empty if it can. Installs it first."""
        return self._environment.absent()

    def version(self) -> str:
        """Returns the version that is installed."""
        return self._environment.version("vllm-router")

    def launch(self, stage: Stage) -> Launch:
        """Returns how it is started; it bounds calls at 32768 as it comes."""
        command = [self._environment.program("vllm-router"), *router_options(stage)]
        return Launch(command=command, environment=ROUTER_VARIABLES, ready_path=READY_PATH)

    def request(self, tokens: int) -> bytes:
        """Returns the body of a request for so many tokens."""
        return chat_request(tokens)
