"""The order of the interceptors, outermost first."""

from collections.abc import Callable
from typing import Any

from opentelemetry.metrics import Histogram
from opentelemetry.trace import Tracer

from tokenwire.domain.request import Delivery
from tokenwire.interceptors.admission import Admission
from tokenwire.interceptors.delivery import DeliveryOptions
from tokenwire.interceptors.guard import Guard
from tokenwire.interceptors.interceptor import Interceptor
from tokenwire.interceptors.telemetry import Telemetry
from tokenwire.interceptors.validation import Validation


def stack(
    tracer: Tracer,
    monotonic: Callable[[], float],
    admission: Admission,
    read_delivery: Callable[[Any], Delivery],
    rpc_duration: Histogram | None = None,
) -> tuple[Interceptor, ...]:
    """Returns the interceptors that every RPC passes."""
    return (
        Guard(),
        Telemetry(tracer, monotonic, rpc_duration),
        admission,
        Validation(),
        DeliveryOptions(read_delivery),
    )
