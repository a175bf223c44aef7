"""W3C's trace context, in and out: what is well-formed goes through, and nothing else does harm."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags, TraceState

from tokenwire.telemetry.propagation import headers, remote_context, span_context, traceparent

_contexts = st.builds(
    SpanContext,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    is_remote=st.just(True),
    trace_flags=st.integers(0, 3).map(TraceFlags),
)


@given(_contexts)
def test_a_place_in_a_trace_is_read_back_as_it_was(context: SpanContext) -> None:
    word = traceparent(context)
    assert len(word) == 55
    assert span_context(word) == context
    found = trace.get_current_span(remote_context({"traceparent": word})).get_span_context()
    assert found == context


@given(st.text(max_size=80))
def test_nonsense_is_no_place(word: str) -> None:
    assert span_context(word) is None
    found = remote_context({"traceparent": word, "tracestate": word, "baggage": word})
    assert not trace.get_current_span(found).get_span_context().is_valid


def test_a_span_without_a_place_sends_no_headers() -> None:
    assert traceparent(INVALID_SPAN_CONTEXT) == ""
    assert headers(INVALID_SPAN_CONTEXT) == {}


def test_the_state_goes_with_it_and_baggage_does_not() -> None:
    state = TraceState([("vendor", "word")])
    sent = headers(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1), trace_state=state))
    assert sent == {"traceparent": f"00-{1:032x}-{2:016x}-01", "tracestate": "vendor=word"}
    assert "baggage" not in str(remote_context({"traceparent": sent["traceparent"], "baggage": "a=b"}))
