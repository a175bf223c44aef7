"""One shape for every interceptor and every arity."""

from collections.abc import Awaitable
from typing import Any, Protocol

from tokenwire.transport.call import Call, Handler


class Interceptor(Protocol):
    """Stands around a handler. Ordinary try/except/finally, timeouts and context variables are all fine inside."""

    def around(self, request: Any, call: Call, proceed: Handler) -> Awaitable[Any]:
        """Serves the call by awaiting `proceed(request, call)`, at most once, and returns its answer."""
        ...


def stacked(handler: Handler, interceptors: tuple[Interceptor, ...]) -> Handler:
    """Puts interceptors around a handler, the first one outermost."""
    for interceptor in reversed(interceptors):
        handler = _layer(interceptor, handler)
    return handler


def _layer(interceptor: Interceptor, inner: Handler) -> Handler:
    # No coroutine of its own: every message resumes all that stand between the transport and the servicer.
    def layer(request: Any, call: Call) -> Awaitable[Any]:
        return interceptor.around(request, call, inner)

    return layer
