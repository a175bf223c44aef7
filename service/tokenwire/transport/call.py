"""One RPC, as interceptors and servicers see it."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from tokenwire.domain.context import RequestContext
from tokenwire.domain.request import Delivery
from tokenwire.transport.driving import Done as Done
from tokenwire.transport.driving import drive


class Kind(Enum):
    """How many messages go which way."""

    UNARY = auto()
    SERVER_STREAM = auto()
    # The two whose requests come as a stream: `Requests` take the place of the request.
    CLIENT_STREAM = auto()
    BIDI = auto()


class Call(Protocol):
    """One RPC. A transport makes it; whoever serves it needs nothing else.

    Attributes:
        method: the full name, such as /tokenwire.v1.GenerateService/Generate.
        kind: how many messages go which way.
        context: the RPC's id and tenant.
        delivery: how the reader wants its stream; set by the delivery interceptor.
        messages: how many were written; a write is under way until it has gone up.
        parse: bytes to the method's request message; raises ValueError if they are none.
    """

    method: str
    kind: Kind
    context: RequestContext
    delivery: Delivery
    messages: int
    parse: Callable[[bytes], Any]

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, str]:
        """What the client sent, by lower-case key; the last value of a key counts."""

    @property
    @abstractmethod
    def time_remaining(self) -> float | None:
        """Seconds to the client's deadline, or None if it set none."""

    @abstractmethod
    async def write(self, message: object) -> None:
        """Sends one message of a stream: an Envelope, or a protobuf message.

        Returns when the transport takes more. Raises ClientGoneError when nobody is there.
        """

    def begin_write(self, message: object, done: Done) -> None:
        """Begins to send one message of a stream, for whoever has no task to wait in.

        `done` is called once, when the transport takes more, perhaps before this returns: with None, or with what
        `write` would have raised. May raise what `write` raises before it waits. It counts as a write: one at a time.
        """
        drive(self.write(message), done)


class Requests(Protocol):
    """The requests of a call that has a stream of them: bytes outside the validation interceptor, messages inside.

    The next one is taken from the transport when it is asked for, and not before: who does not read holds the client
    back. One task reads at a time; when it was cancelled in a read, nobody can go on.

    The stream ends when the client has half-closed, or has left: gRPC tells the two apart only a moment later, by the
    call's cancellation. A handler to which that makes a difference writes a message first: it cannot be written to a
    client that has left.
    """

    def __aiter__(self) -> "Requests":
        """Returns itself."""
        ...

    async def __anext__(self) -> Any:
        """Returns the next request. Raises StopAsyncIteration at the end, TokenwireError for one that is broken."""
        ...


class ClientGoneError(Exception):
    """The client has left in the middle of a write. Not a failure."""


# A handler: the request (bytes outside the validation interceptor, a message inside) or the Requests, the call, and for
# a call whose answer is not streamed its answer.
Handler = Callable[[Any, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method that a transport serves."""

    method: str
    kind: Kind
    parse: Callable[[bytes], Any]
    handler: Handler
