"""smg, the Shepherd model gateway (Rust)."""

from bench.system import Dialect, Launch, Stage, Wire
from bench.systems.peers.chat import CHAT_PATH, chat_request
from bench.systems.peers.environment import PeerEnvironment
from bench.systems.peers.router import READY_PATH, ROUTER_VARIABLES, router_options


class Smg:
    """smg, in front of an engine's HTTP server."""

    name = "smg"
    wire = Wire.SSE
    path = CHAT_PATH
    dialect = Dialect.CHAT

    def __init__(self, environment: PeerEnvironment | None = None) -> None:
        self._environment = environment or PeerEnvironment("smg")

    def absent(self) -> str:
        """Returns why it cannot be measured here; empty if it can. Installs it first."""
        return self._environment.absent()

    def version(self) -> str:
        """Returns the version that is installed."""
        return self._environment.version("smg")

    def launch(self, stage: Stage) -> Launch:
        """Returns how it is started."""
        command = [self._environment.program("smg"), "launch", *router_options(stage)]
        # Neither is needed with one engine and plain chats; both would cost something beside the calls.
        command += ["--disable-load-monitoring", "--disable-tokenizer-autoload", "--history-backend", "none"]
        command += ["--max-concurrent-requests", "32768", "--shutdown-grace-period-secs", "1"]
        return Launch(command=command, environment=ROUTER_VARIABLES, ready_path=READY_PATH)

    def request(self, tokens: int) -> bytes:
        """Returns the body of a request for so many tokens."""
        return chat_request(tokens)
