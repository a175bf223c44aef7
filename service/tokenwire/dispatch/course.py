"""What is known of one run on its way through several attempts."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Self

from tokenwire.dispatch.fields import refused_field
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.tries import Failover, Tries
from tokenwire.domain.errors import Code, EngineError, TokenwireError
from tokenwire.domain.request import FailoverPolicy, engine_fields
from tokenwire.engines.engine import Engine


@dataclass(slots=True, kw_only=True)
class Course:
    """One run's attempts, as this process makes them.

    Attributes:
        asked: what an engine must have, as `engine_fields` tells it.
        policy: whether the run is tried again.
        tries: what has failed.
        rendered_by: the engine for which the run's prompt was rendered, if that is known.
        streamed: whether a streaming RPC may have asked for it.
        first_token_at: until when the first token must have come, in the time of `now`; None: each attempt has its
            own limit.
        now: seconds that never go back.
        blamed: engines whose failure with this run was counted.
    """

    asked: tuple[str, ...]
    policy: FailoverPolicy
    tries: Tries
    rendered_by: Engine | None
    streamed: bool
    first_token_at: float | None
    now: Callable[[], float]
    blamed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, run: Run, failover: Failover, now: Callable[[], float], rng: Random) -> Self:
        """Begins the course of a run."""
        limit = run.submission.limits.first_token_timeout
        engine, asked = run.engine, tuple(engine_fields(run.submission))
        return cls(
            asked=asked,
            policy=run.submission.run.failover or failover.policy,
            tries=Tries(failover, now, rng),
            rendered_by=engine,
            streamed=engine is None or refused_field(asked, engine, streamed=True) is None,
            first_token_at=None if limit is None else now() + limit,
            now=now,
        )

    def first_token_left(self) -> float | None:
        """Returns the seconds until the first token must have come, or None."""
        return None if self.first_token_at is None else self.first_token_at - self.now()

    def nobody_left(self, *, late: bool = False) -> TokenwireError:
        """Returns the run's error where no engine can be tried; `late`: because its first token had to come by now."""
        field = next((field for field in self.tries.out.values() if field), None)
        if field is not None:
            return self.refused(field)
        if late:
            return EngineError(
                Code.DEADLINE_EXCEEDED,
                "FIRST_TOKEN_TIMEOUT",
                "no engine gave a token within the limit",
                retryable=True,
            )
        return self.tries.last or EngineError(
            Code.UNAVAILABLE, "ENGINE_UNREACHABLE", "no engine can be reached", retryable=True, retry_after=1.0
        )

    def refused(self, field: str) -> TokenwireError:
        """Returns the run's error where an answer cannot be gone on with because of a field.

        What the engine failed with stays its reason, as that is what happened; the field is told beside it.
        """
        last = self.tries.last
        if last is None:
            return EngineError(
                Code.DATA_LOSS,
                "CONTINUATION_UNSUPPORTED",
                f"the run cannot be gone on with in the middle of its answer because of {field}",
                retryable=True,
                metadata={"continuation_refused": field},
            )
        return EngineError(
            last.code,
            last.reason,
            f"{last.message}; the run cannot be gone on with because of {field}",
            retryable=last.retryable,
            retry_after=last.retry_after,
            violations=last.violations,
            resource=last.resource,
            metadata=last.metadata | {"continuation_refused": field},
        )
