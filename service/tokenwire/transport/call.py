"""One RPC, as interceptors and servicers see it."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from tokenwire.domain.context import RequestContext
from tokenwire.domain.errors import Code
from tokenwire.domain.request import Delivery


class Kind(Enum):
    """How many messages go which way."""

    UNARY = auto()
    SERVER_STREAM = auto()
    # Requests come as a stream: an async iterator takes the place of the request.
    CLIENT_STREAM = auto()
    BIDI = auto()


class Call(Protocol):
    """One RPC. A transport makes it; whoever serves it needs nothing else.

    Attributes:
        method: the full name, such as /tokenwire.v1.GenerateService/Generate.
        kind: how many messages go which way.
        context: the RPC's id and tenant.
        delivery: how the reader wants its stream; set by the delivery interceptor.
        messages: how many were written.
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


class ClientGoneError(Exception):
    """The client has left in the middle of a write. Not a failure."""


class AbortedError(Exception):
    """A handler that is not ours has set the status itself."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


# A handler: the request (bytes outside the validation interceptor, a message inside), the call, and for a call that is
# not streamed its answer.
Handler = Callable[[Any, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method that a transport serves."""

    method: str
    kind: Kind
    parse: Callable[[bytes], Any]
    handler: Handler
