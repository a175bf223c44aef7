"""Who is told what becomes of runs, to make traces and metrics of it.

Nothing here waits or fails, and nothing is told for each token: only of runs, attempts, and RPCs that join a run.
"""

from collections.abc import Mapping
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from tokenwire.domain.cursor import Cursor
from tokenwire.domain.events import Continuation
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine

if TYPE_CHECKING:
    from tokenwire.dispatch.run import Run


class Joining(Enum):
    """How an RPC came to a run that another one began: by its request id, or by asking for the run."""

    SUBMIT = "submit"
    ATTACH = "attach"
    WAIT = "wait"


class AttemptObserver(Protocol):
    """Is told of one attempt, as a context around it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers for the engine."""
        ...

    def first_token(self) -> None:
        """The engine has told a token; may be said more than once."""
        ...

    def __enter__(self) -> Self:
        """The attempt begins."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The attempt has ended, well or with this error."""
        ...


class RunObserver(Protocol):
    """Is told of one run, as long as this process writes it."""

    @property
    def traceparent(self) -> str:
        """Where the run stands in a trace, to be kept with it; may be empty."""
        ...

    def accepted(self, run: "Run") -> None:
        """The run is there. What was announced and is never accepted does not count."""
        ...

    def queued(self) -> None:
        """The run has to wait for a place."""
        ...

    def seated(self, engine: Engine | None) -> None:
        """The run has a place on an engine, at once or after waiting; None: it has given up."""
        ...

    def attempt(
        self, engine: Engine, by: Continuation, submission: Submission, prompt_tokens: int | None, *, streamed: bool
    ) -> AttemptObserver:
        """Returns who is told of the run's next attempt.

        Args:
            engine: where.
            by: how it goes on.
            submission: what the engine is asked for.
            prompt_tokens: how many tokens it is sent, if that is known.
            streamed: whether the answer comes bit by bit.
        """
        ...

    def ended(self) -> None:
        """The run has its `end`, or this process has let it go."""
        ...


class Observer(Protocol):
    """Is told of runs."""

    def begins(self, run_id: str, model: str, submission: Submission) -> RunObserver:
        """Returns who is told of a run that is about to be accepted."""
        ...

    def takes_over(self, run: "Run") -> RunObserver:
        """Returns who is told of a run that another process has begun, and this one goes on with."""
        ...

    def joins(self, run: "Run", how: Joining, after: Cursor | None) -> None:
        """An RPC reads a run that another one began, after a cursor."""
        ...


class UnobservedAttempt:
    """Of this attempt nobody is told."""

    headers: Mapping[str, str] = {}

    def first_token(self) -> None:
        """See AttemptObserver."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See AttemptObserver."""


class UnobservedRun:
    """Of this run nobody is told."""

    traceparent = ""

    def accepted(self, run: "Run") -> None:
        """See RunObserver."""

    def queued(self) -> None:
        """See RunObserver."""

    def seated(self, engine: Engine | None) -> None:
        """See RunObserver."""

    def attempt(
        self, engine: Engine, by: Continuation, submission: Submission, prompt_tokens: int | None, *, streamed: bool
    ) -> AttemptObserver:
        """See RunObserver."""
        return _ATTEMPT

    def ended(self) -> None:
        """See RunObserver."""


class Unobserved:
    """Nobody is told anything."""

    def begins(self, run_id: str, model: str, submission: Submission) -> RunObserver:
        """See Observer."""
        return UNOBSERVED_RUN

    def takes_over(self, run: "Run") -> RunObserver:
        """See Observer."""
        return UNOBSERVED_RUN

    def joins(self, run: "Run", how: Joining, after: Cursor | None) -> None:
        """See Observer."""


_ATTEMPT = UnobservedAttempt()
UNOBSERVED_RUN: RunObserver = UnobservedRun()
UNOBSERVED: Observer = Unobserved()
