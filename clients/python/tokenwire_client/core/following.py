"""Follows one run over as many calls as it takes: says what to call, takes what comes, and says what to do next."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest
from tokenwire_client.core import failure as failures
from tokenwire_client.core.answer import Result, result_of
from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure
from tokenwire_client.core.pace import Pace
from tokenwire_client.core.policy import Policy
from tokenwire_client.core.transcript import CorruptError, Transcript
from tokenwire_client.errors import (
    BrokenError,
    IntegrityError,
    OverdueError,
    RefusedError,
    RunFailedError,
    TokenwireClientError,
)

# StreamGenerate, StreamChat or AttachRun, by the type.
Request = GenerateRequest | ChatRequest | AttachRunRequest

_VIEW_ONLY = ("progress", "heartbeat", "detached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The next call is to be made.

    Args:
        seconds: after so long.
        attempt: which one it is in a row without anything new, from 1.
        failure: how the last one ended.
    """

    seconds: float
    attempt: int
    failure: Failure


class Following:
    """One run, from the first call to its end.

    Make a call with `request`; give each event to `add`, and the call's end to `finished` (status OK) or `failed`.
    These answer `Again`, or None when all is read, or raise what the caller is to be told. No call is made by it, no
    time passes in it: a simulation can drive it.

    Args:
        request: a submit with a request id, which may be sent again without harm, or an attach.
        policy: how hard to try.
        clock: seconds, from any beginning.
        rng: chooses the waits.
        timeout: seconds for all of it; None: no limit.

    Attributes:
        read: what was read.
        cursor: how far that is; None at the start.
        run_id: the run; empty as long as it is not known.
    """

    def __init__(
        self,
        request: Request,
        *,
        policy: Policy,
        clock: Callable[[], float],
        rng: random.Random,
        timeout: float | None = None,
    ) -> None:
        after = request.after if request.HasField("after") else None
        self.read = Transcript(after)
        self.cursor: Cursor | None = after
        self.submitted = not isinstance(request, AttachRunRequest)
        self.run_id = request.run_id if isinstance(request, AttachRunRequest) else ""
        self.request_id = request.request_id if isinstance(request, AttachRunRequest) else request.run.request_id
        if self.submitted and not self.request_id:
            raise ValueError("a submit without a request id cannot be sent again")
        self._detached_run = isinstance(request, GenerateRequest | ChatRequest) and request.run.detached
        self._first = request
        self._policy = policy
        self._clock = clock
        self._pace = Pace(policy, clock, rng)
        self._deadline = None if timeout is None else clock() + timeout
        # Whether the server was heard in any call; whether this call's view was stopped, and when to come back then.
        self._heard = False
        self._stopped = False
        self._come_back = 0.0
        self._over = False

    @property
    def ended(self) -> bool:
        """Whether the run's `end` came."""
        return self.read.end is not None

    @property
    def cancel(self) -> CancelRunRequest | None:
        """What to send before the run is left; None if it has ended, is not ours, or is to go on."""
        if not self.submitted or self._detached_run or self.ended or self._over:
            return None
        return self.cancelling

    @property
    def cancelling(self) -> CancelRunRequest:
        """What ends the run."""
        return CancelRunRequest(run_id=self.run_id) if self.run_id else CancelRunRequest(request_id=self.request_id)

    @property
    def request(self) -> Request:
        """The next call's request."""
        if not self.run_id and self.submitted:
            # As long as the run is not known it may not be there; the request id makes sure that there is one at most.
            if self.cursor is None or self.cursor == self._first.after:
                return self._first
            again = type(self._first)()
            again.CopyFrom(self._first)  # type: ignore[arg-type]
            again.after.CopyFrom(self.cursor)
            return again
        attach = AttachRunRequest(after=self.cursor)
        if self.run_id:
            attach.run_id = self.run_id
        else:
            attach.request_id = self.request_id
        if self._first.HasField("delivery"):
            attach.delivery.CopyFrom(self._first.delivery)
        return attach

    @property
    def time_left(self) -> float | None:
        """Seconds until the caller's time is over; None: it has no limit."""
        return None if self._deadline is None else max(self._deadline - self._clock(), 0.0)

    def add(self, event: Event) -> Event | None:
        """Takes the next event of the call; returns it, or what of it is new, if the caller is to have it."""
        kind = event.WhichOneof("event")
        self._heard = True
        self._pace.alive()
        if not self.ended and (kind in _VIEW_ONLY or kind is None):
            # One without a kind is of a later contract.
            return self._view_only(event, kind)
        try:
            new = self.read.add(event, kind)
        except CorruptError as error:
            self._over = kind == "end"
            raise self._error(IntegrityError, Failure(code=Code.DATA_LOSS, message=str(error))) from None
        if event.HasField("cursor"):
            self.cursor = event.cursor
        if kind == "start":
            self.run_id = event.start.run_id
            self.request_id = event.start.request_id or self.request_id
        if new is not None:
            self._pace.progress()
        return new

    def finished(self) -> Again | None:
        """Takes the end of a call with the status OK."""
        if self._stopped and not self.ended:
            return self._again(Failure(code=Code.UNAVAILABLE, message="the server stopped the stream"))
        if not self.ended:
            failure = Failure(
                code=Code.DATA_LOSS, message="the stream ended without its `end` event: the answer may not be whole"
            )
            raise self._error(IntegrityError, failure)
        self._raise_run_error(None)
        return None

    def failed(self, failure: Failure) -> Again | None:
        """Takes the end of a call with another status, or of its line."""
        self._heard = self._heard or failure.told
        if self.ended:
            # All has been said; the status adds a few facts at most.
            self._raise_run_error(failure)
            return None
        if self._stopped or failure.passing(accepted=bool(self.run_id)):
            return self._again(failure)
        if failure.code is Code.DEADLINE_EXCEEDED and not failure.told:
            raise self._error(OverdueError, failures.overdue())
        # A refusal of the submit makes no run.
        self._over = failure.told and not self.run_id
        raise self._error(RefusedError, failure)

    def result(self) -> Result:
        """Returns the whole answer, once it has ended."""
        return result_of(self.read, run_id=self.run_id, request_id=self.request_id)

    def _view_only(self, event: Event, kind: str | None) -> Event | None:
        if kind == "progress":
            return event
        if kind == "detached":
            self._stopped = True
            self._come_back = event.detached.retry_after_ms / 1000
            if event.HasField("cursor") and event.cursor.ByteSize():
                self.cursor = event.cursor
        return None

    def _again(self, failure: Failure) -> Again:
        at_least = max(failure.retry_after or 0.0, self._come_back)
        self._stopped, self._come_back = False, 0.0
        seconds = self._pace.wait(at_least) if self._heard or self._policy.wait_for_server else None
        if seconds is None:
            self._over = True
            raise self._error(BrokenError if failure.broken else RefusedError, failure)
        left = self.time_left
        if left is not None and seconds >= left:
            raise self._error(OverdueError, failures.overdue())
        return Again(seconds=seconds, attempt=self._pace.attempt, failure=failure)

    def _raise_run_error(self, status: Failure | None) -> None:
        end = self.read.end
        if end is not None and end.HasField("error"):
            raise self._error(RunFailedError, failures.of_run(end.error, status))

    def _error(self, kind: type[TokenwireClientError], failure: Failure) -> TokenwireClientError:
        return kind(
            failure,
            run_id=self.run_id,
            request_id=self.request_id,
            cursor=self.cursor,
            texts=self.read.all_texts(),
        )
