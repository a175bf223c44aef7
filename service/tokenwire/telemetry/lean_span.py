"""A span that takes little while it is open: what only a finished one needs is made when it ends."""

import time
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue


class Ends:
    """What all spans of a tracer share: whose they are, and who takes them when they end.

    Args:
        resource: the process's attributes.
        scope: the tracer's name.
        limits: how many attributes and links a span may have, and how long a text; more is dropped, as in the SDK.
        take: is given each span that has ended.
        now: nanoseconds since 1970.
    """

    __slots__ = ("_limits", "_resource", "_scope", "_take", "now")

    def __init__(
        self,
        resource: Resource,
        scope: InstrumentationScope,
        limits: SpanLimits,
        take: Callable[[ReadableSpan], None],
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._resource = resource
        self._scope = scope
        self._limits = limits
        self._take = take
        self.now = now

    def end(self, span: "LeanSpan", ended: int) -> None:
        """Makes what exporters read, and hands it on."""
        self._take(
            ReadableSpan(
                name=span.name,
                context=span.get_span_context(),
                parent=span.parent,
                resource=self._resource,
                attributes=self._bounded(span.attributes),
                links=self._few(span.links),
                kind=span.kind,
                status=span.status,
                start_time=span.started,
                end_time=ended,
                instrumentation_scope=self._scope,
            )
        )

    def _bounded(self, attributes: Mapping[str, AttributeValue]) -> Attributes:
        most, longest = self._limits.max_span_attributes, self._limits.max_span_attribute_length
        if longest is None and (most is None or len(attributes) <= most):
            return attributes
        return BoundedAttributes(most, attributes, max_value_len=longest)

    def _few(self, links: Sequence[Link]) -> Sequence[Link]:
        return BoundedList.from_seq(self._limits.max_links, links) if links else ()


class LeanSpan(Span):
    """A span of ours, for one thread. It has attributes, links and a status; events it has none, as all of our spans.

    An open span of the SDK takes 3 KiB, most of it for events, links and locks that ours do not use.

    Args:
        ends: takes it when it ends.
        name: its name.
        context: its place in its trace.
        parent: the place of the span that it is in.
        kind: what it is to others.
        attributes: are kept as they are, so that many spans may share them.
        links: further spans that it belongs to.
        started: nanoseconds since 1970.
    """

    __slots__ = ("_context", "_ends", "attributes", "kind", "links", "name", "parent", "started", "status")

    def __init__(
        self,
        ends: Ends,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        links: Sequence[Link],
        started: int,
    ) -> None:
        self._ends: Ends | None = ends
        self._context = context
        self.name = name
        self.parent = parent
        self.kind = kind
        self.attributes = attributes
        self.links = links
        self.started = started
        self.status = _UNSET

    def get_span_context(self) -> SpanContext:
        """Returns its place in its trace."""
        return self._context

    def is_recording(self) -> bool:
        """Whether it is still open."""
        return self._ends is not None

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Adds attributes; of one that has ended nothing changes any more, here and below."""
        if self._ends is not None:
            self.attributes = {**self.attributes, **attributes}

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Adds one attribute."""
        self.set_attributes({key: value})

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Adds a link; one to nowhere does not count."""
        if self._ends is not None and context.is_valid:
            self.links = (*self.links, Link(context, attributes or {}))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Says how it went."""
        if self._ends is not None:
            self.status = status if isinstance(status, Status) else Status(status, description)

    def update_name(self, name: str) -> None:
        """Changes its name."""
        if self._ends is not None:
            self.name = name

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Nothing: our spans have no events."""

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Nothing: an exception's text may hold anything."""

    def end(self, end_time: int | None = None) -> None:
        """Ends it, once."""
        ends, self._ends = self._ends, None
        if ends is not None:
            ends.end(self, ends.now() if end_time is None else end_time)
            # What the call began has it in its context, and may be kept for long.
            self.attributes, self.links = _NOTHING, ()


_UNSET = Status(StatusCode.UNSET)
_NOTHING: Mapping[str, AttributeValue] = {}
