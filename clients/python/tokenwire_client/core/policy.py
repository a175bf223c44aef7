"""How hard a client tries."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a client tries again, and when it gives up. All times in seconds.

    The waits between two attempts are random, from 0 to a bound that doubles from `first_wait` to `longest_wait`, and
    never shorter than the server asks for. The defaults outlast the 30 s for which a run waits for its reader.

    Args:
        attempts: calls in a row that bring nothing new, until it gives up; 0 never tries again.
        give_up_after: how long it tries in all without hearing of the server, a heartbeat included.
        first_wait: the bound of the first wait.
        longest_wait: the largest bound.
        silence: a stream on which nothing comes for so long is taken for broken; heartbeats come every 10 s.
        leave: how long leaving a stream may take, so that the server hears of it.
        wait_for_server: whether a server that was never reached is tried again as well.
    """

    attempts: int = 20
    give_up_after: float = 60.0
    first_wait: float = 0.1
    longest_wait: float = 5.0
    silence: float = 35.0
    leave: float = 3.0
    wait_for_server: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for what makes no sense."""
        if self.attempts < 0 or min(self.give_up_after, self.first_wait, self.longest_wait) < 0:
            raise ValueError("attempts and waits cannot be below 0")
        if self.silence <= 0 or self.leave <= 0:
            raise ValueError("silence and leave must be above 0")
