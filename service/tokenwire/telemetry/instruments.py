"""The instruments that are told of calls, runs and attempts as they end. Each is made once."""

from collections.abc import Mapping

from opentelemetry.metrics import Histogram, Meter

from tokenwire.telemetry import names

# The boundaries of the conventions, in seconds or tokens.
_CALL = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_OPERATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_TOKENS = tuple(4**power for power in range(14))
# Our own: from what nobody notices to what nobody bears.
_WAIT = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# What a metric is labelled with.
Labels = Mapping[str, str]


class Instruments:
    """All histograms and counters.

    Args:
        meter: makes them.
        latest: give those of generative AI the names of the latest conventions.

    Attributes:
        rpc_duration: of each RPC.
        server_duration: of each run, from the call that asked for it to its end.
        server_first_token: of each run that ended well, from that call to its first text.
        server_per_token: of each run that ended well, the mean time of an output token after the first.
        client_duration: of each attempt.
        client_first_chunk: of each attempt that streamed, to its first token.
        client_per_chunk: of each attempt that streamed, the mean time between two of its reads with text.
        client_tokens: of each attempt.
        queue_wait: of each attempt, for its place on an engine.
        resumes: RPCs that read a run which another one began.
        failovers: attempts after a run's first.
        reader_pause: of each fault, from the last event before it to the first token after it.
    """

    def __init__(self, meter: Meter, *, latest: bool = False) -> None:
        def seconds(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=buckets)

        client = names.CLIENT_LATEST if latest else names.CLIENT
        self.rpc_duration = seconds(names.RPC_DURATION, "How long RPCs took.", _CALL)
        self.server_duration = seconds(names.SERVER_DURATION, "How long runs took.", _OPERATION)
        self.server_first_token = seconds(names.SERVER_FIRST_TOKEN, "How long runs took to tell text.", _FIRST_TOKEN)
        self.server_per_token = seconds(
            names.SERVER_PER_TOKEN, "The mean time of each token after a run's first.", _PER_TOKEN
        )
        self.client_duration = seconds(client.duration, "How long attempts at engines took.", _OPERATION)
        self.client_first_chunk = seconds(client.first_chunk, "How long engines took to tell a token.", _OPERATION)
        self.client_per_chunk = seconds(
            client.per_chunk, "The mean time between two pieces of an attempt, once for each attempt.", _OPERATION
        )
        self.client_tokens: TokenUsage = LatestTokenUsage(meter) if latest else TokenUsage(meter)
        self.queue_wait = seconds(names.QUEUE_WAIT, "How long attempts waited for a place on an engine.", _WAIT)
        self.reader_pause = seconds(
            names.READER_PAUSE, "How long readers saw nothing new of a run because of a fault.", _WAIT
        )
        self.resumes = meter.create_counter(names.RESUMES, "{rpc}", "RPCs that read a run which another one began.")
        self.failovers = meter.create_counter(names.FAILOVERS, "{attempt}", "Attempts after the first of their run.")


class TokenUsage:
    """Tokens of attempts, as one histogram for both kinds."""

    def __init__(self, meter: Meter) -> None:
        self._histogram = meter.create_histogram(
            names.TOKEN_USAGE,
            "{token}",
            "Tokens that attempts read and wrote.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    def record(self, labels: Labels, *, read: int, cached: int, written: int, reasoning: int) -> None:
        """Notes what one attempt has read, cached tokens included, and written, reasoning included."""
        self._histogram.record(read, {**labels, names.TOKEN_TYPE: "input"})
        self._histogram.record(written, {**labels, names.TOKEN_TYPE: "output"})


class LatestTokenUsage(TokenUsage):
    """The same, by the latest conventions: a counter for each kind, and a histogram of each attempt's size."""

    def __init__(self, meter: Meter) -> None:
        self._read = meter.create_counter(names.LATEST_INPUT, "{token}", "Tokens that attempts read.")
        self._cached = meter.create_counter(names.LATEST_CACHED, "{token}", "Those of them that were cached.")
        self._written = meter.create_counter(names.LATEST_OUTPUT, "{token}", "Tokens that attempts wrote.")
        self._reasoning = meter.create_counter(names.LATEST_REASONING, "{token}", "Those of them that were reasoning.")
        self._read_size = meter.create_histogram(
            names.LATEST_INPUT_SIZE,
            "{token}",
            "Tokens that an attempt read.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._written_size = meter.create_histogram(
            names.LATEST_OUTPUT_SIZE,
            "{token}",
            "Tokens that an attempt wrote.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    def record(self, labels: Labels, *, read: int, cached: int, written: int, reasoning: int) -> None:
        """See TokenUsage."""
        text = {**labels, names.TOKEN_MODALITY: "text"}
        self._read.add(read, text)
        self._written.add(written, text)
        if cached:
            self._cached.add(cached, text)
        if reasoning:
            self._reasoning.add(reasoning, text)
        self._read_size.record(read, labels)
        self._written_size.record(written, labels)
