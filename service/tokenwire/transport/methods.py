"""The methods of a server, as every transport serves them: found by name, inside the same layers, answered in bytes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from tokenwire.domain.context import RequestContext
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import Endpoint, Handler, Kind

# Trailers beyond 8 KiB are refused at random. Details take up to 6 of it, and a byte of the message up to three.
MAX_MESSAGE_BYTES = 500
DETAILS_KEY = "grpc-status-details-bin"
# Stands for every method that is none: what clients call is not repeated.
UNKNOWN_METHOD = "/_OTHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a call ended that did not end well.

    Attributes:
        code: gRPC's code.
        message: at most 500 bytes of UTF-8.
        details: a serialized google.rpc.Status.
    """

    code: Code
    message: str
    details: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method, ready to be served.

    Attributes:
        name: the full name, such as /tokenwire.v1.GenerateService/Generate.
        kind: how many messages go which way.
        parse: bytes to the request's message; raises ValueError alone, and says nothing of what it read.
        handler: inside its layers; what it returns is bytes, or None if the answer is a stream.
    """

    name: str
    kind: Kind
    parse: Callable[[bytes], Any]
    handler: Handler

    @property
    def requests_streamed(self) -> bool:
        """Whether the handler is given `Requests` in place of a request."""
        return self.kind in (Kind.CLIENT_STREAM, Kind.BIDI)

    @property
    def answers_streamed(self) -> bool:
        """Whether the handler writes its answers, and returns none."""
        return self.kind in (Kind.SERVER_STREAM, Kind.BIDI)


class Methods:
    """Every method of a server.

    Args:
        endpoints: what is served.
        layered: puts the interceptors around a handler.
        encode: what a handler returns or writes, to bytes.
        encode_error: an error and the rpc id, to a serialized google.rpc.Status.
        new_context: makes an RPC's context.
        message_max_bytes: the largest message either way.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        layered: Callable[[Handler], Handler],
        encode: Callable[[object], bytes],
        encode_error: Callable[[TokenwireError, str], bytes],
        new_context: Callable[[], RequestContext],
        message_max_bytes: int,
    ) -> None:
        self._layered = layered
        self._encode_message = encode
        self._encode_error = encode_error
        self.new_context = new_context
        self.message_max_bytes = message_max_bytes
        self._methods = {endpoint.method: self._method(endpoint) for endpoint in endpoints}
        # One for all: what clients make up leaves nothing behind.
        self._unknown = self._method(
            Endpoint(method=UNKNOWN_METHOD, kind=Kind.BIDI, parse=bytes, handler=_unknown),
        )

    def find(self, name: str) -> Method:
        """Returns the method of a name, or the one that answers for all that there are not."""
        return self._methods.get(name, self._unknown)

    def encode(self, message: object) -> bytes:
        """Makes bytes of what a handler writes. Raises what `encode` raises, and MESSAGE_TOO_LARGE."""
        data = message if type(message) is bytes else self._encode_message(message)
        if len(data) > self.message_max_bytes:
            raise TokenwireError(
                Code.RESOURCE_EXHAUSTED,
                "MESSAGE_TOO_LARGE",
                "the answer is larger than a message may be; read it as a stream, without its full text at the end",
                metadata={"limit": str(self.message_max_bytes), "got": str(len(data))},
            )
        return data

    def status(self, error: TokenwireError, rpc_id: str) -> Status:
        """Makes a call's status of an error."""
        message = error.message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
        return Status(code=error.code, message=message, details=self._encode_error(error, rpc_id))

    def _method(self, endpoint: Endpoint) -> Method:
        streams = endpoint.kind in (Kind.SERVER_STREAM, Kind.BIDI)
        # Inside the layers, so that an answer which cannot be encoded is a bug like any other.
        handler = self._layered(endpoint.handler if streams else self._encoded(endpoint.handler))
        return Method(name=endpoint.method, kind=endpoint.kind, parse=_strict(endpoint.parse), handler=handler)

    def _encoded(self, handler: Handler) -> Handler:
        async def serve(request: Any, call: Any) -> bytes:
            return self.encode(await handler(request, call))

        return serve


async def _unknown(request: Any, call: Any) -> NoReturn:
    raise TokenwireError(Code.UNIMPLEMENTED, "METHOD_UNKNOWN", "the server has no such method")


def _strict(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except Exception as error:
            raise ValueError("not a message of this method") from error

    return parsed
