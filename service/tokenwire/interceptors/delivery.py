"""Installs the reader's view on the call."""

from collections.abc import Awaitable, Callable
from typing import Any

from tokenwire.delivery.view import check_delivery
from tokenwire.domain.request import Delivery
from tokenwire.transport.call import Call, Handler


class DeliveryOptions:
    """Reads `delivery` from every request that has it; refuses modes that this version does not have.

    Args:
        read: the delivery options of a request message; the empty ones if its type has none.
    """

    def __init__(self, read: Callable[[Any], Delivery]) -> None:
        self._read = read

    def around(self, request: Any, call: Call, proceed: Handler) -> Awaitable[Any]:
        """Serves the call."""
        call.delivery = self._read(request)
        check_delivery(call.delivery)
        return proceed(request, call)
