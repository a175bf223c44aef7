"""A batch, read by a thread."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc

from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchGenerateRequest
from tokenwire_client.core.batching import Batching, Item, Outcome
from tokenwire_client.core.failure import Failure
from tokenwire_client.core.policy import Policy
from tokenwire_client.sync.stream import OnReconnect
from tokenwire_client.wire import failure_of

OnEvent = Callable[[BatchEvent], None]


class Batch:
    """The outcomes of many requests, in the order of their ends, each once, whatever becomes of the line.

    Used with `with`, by one thread. Leaving the block before the end stops on the server what is in flight. Items are
    taken, in grpc's own thread, as the server has room for them.

    Raises, while it is iterated: RefusedError, BrokenError, IntegrityError, and whatever the items raise.
    """

    def __init__(
        self,
        batching: Batching,
        items: Iterable[Item],
        *,
        call: Callable[[Iterator[BatchGenerateRequest], float | None], Any],
        policy: Policy,
        sleep: Callable[[float], None],
        on_event: OnEvent | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> None:
        self._batching = batching
        self._source = _Source(batching, items)
        self._make_call = call
        self._policy = policy
        self._sleep = sleep
        self._on_event = on_event
        self._on_reconnect = on_reconnect
        self._call: Any = None
        self._sending: _Sending | None = None
        self._outcomes: deque[Outcome] = deque()
        self._entered = False
        self._over = False

    def __enter__(self) -> Self:
        """Returns itself; the first call is made by the first step."""
        if self._entered:
            raise RuntimeError("a batch is read once")
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops what is in flight, and drops the call."""
        self._over = True
        self._drop()
        request = self._batching.leave
        if request is None:
            return
        with suppress(grpc.RpcError, StopIteration):
            call = self._make_call(iter([request]), self._policy.leave)
            try:
                # It has heard it when it answers.
                next(call)
            finally:
                call.cancel()

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> Outcome:
        """Returns the next item that ended."""
        if not self._entered:
            raise RuntimeError("a batch is read inside `with`")
        while not self._outcomes:
            if self._over:
                raise StopIteration
            try:
                self._step()
            except Exception:
                self._over = True
                raise
        return self._outcomes.popleft()

    def _step(self) -> None:
        if self._call is None or self._sending is None:
            with self._source.lock:
                self._sending = _Sending(self._source, self._batching.open())
            self._call = self._make_call(self._sending, None)
        sending = self._sending
        failure: Failure | None = None
        try:
            event = next(self._call)
        except StopIteration:
            pass
        except grpc.RpcError as error:
            failure = failure_of(error)
        else:
            sending.answered.set()
            self._take(event)
            return
        self._drop()
        if self._source.error is not None:
            raise self._source.error
        with self._source.lock:
            again = self._batching.finished() if failure is None else self._batching.failed(failure)
        if again is None:
            self._over = True
        elif again.attempt:
            if self._on_reconnect is not None:
                self._on_reconnect(again.attempt, again.failure, again.seconds)
            self._sleep(again.seconds)

    def _take(self, event: BatchEvent) -> None:
        with self._source.lock:
            events = self._batching.add(event)
        for one in events:
            if self._on_event is not None:
                self._on_event(one)
            if one.HasField("item_done"):
                self._outcomes.append(Outcome(one.item_done))

    def _drop(self) -> None:
        call, self._call = self._call, None
        if self._sending is not None:
            self._sending.over = True
            self._sending.answered.set()
        if call is not None:
            call.cancel()


class _Source:
    """Takes items one by one, in whichever thread sends.

    Attributes:
        lock: held for each look at the batch; never while the items are waited for.
        error: what the items raised.
    """

    def __init__(self, batching: Batching, items: Iterable[Item]) -> None:
        self.lock = threading.Lock()
        self.error: Exception | None = None
        self._batching = batching
        self._items = iter(items)
        # The thread of a call that has broken may still wait for an item; it then leaves it to the next one.
        self._turn = threading.Lock()

    def again(self) -> BatchGenerateRequest | None:
        """Returns the next item to send that is known."""
        with self.lock:
            return self._batching.again()

    def grow(self) -> bool:
        """Takes one more item; returns whether there may be more to send. Raises what the items raise."""
        with self._turn:
            with self.lock:
                if not self._batching.takes:
                    return False
            try:
                item = next(self._items, None)
                with self.lock:
                    if item is None:
                        self._batching.exhausted = True
                    else:
                        self._batching.take(item)
            except Exception as error:
                self.error = error
                raise
        return True


class _Sending:
    """The requests of one call, as grpc takes them.

    Attributes:
        answered: set once the server has answered, or the call is over.
        over: whether it is.
    """

    def __init__(self, source: _Source, opening: BatchGenerateRequest) -> None:
        self.answered = threading.Event()
        self.over = False
        self._source = source
        self._opening: BatchGenerateRequest | None = opening

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> BatchGenerateRequest:
        """Returns the next request; waits for the items."""
        opening, self._opening = self._opening, None
        if opening is not None:
            return opening
        # A refusal of the batch would be masked by that of a write.
        self.answered.wait()
        while not self.over:
            request = self._source.again()
            if request is not None:
                return request
            if not self._source.grow():
                # What another call's thread has taken meanwhile is to be sent too.
                request = self._source.again()
                if request is not None:
                    return request
                break
        raise StopIteration
