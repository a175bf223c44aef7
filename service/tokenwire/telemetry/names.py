"""Every name that is sent: of spans, attributes, their values, and instruments.

Those that are not ours: https://opentelemetry.io/docs/specs/semconv/rpc/ and the conventions for generative AI at
https://github.com/open-telemetry/semantic-conventions-genai. All of the latter are under development there.
"""

from dataclasses import dataclass

SCOPE = "tokenwire"
SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SERVICE_INSTANCE_ID = "service.instance.id"

# Spans. An attempt is named by its operation and model, an RPC by its method.
SPAN_RUN = "run"
SPAN_QUEUE = "queue wait"
SPAN_UNKNOWN_RPC = "grpc"

# Attributes of RPCs.
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"
# What a label says that would be one of too many.
OTHER = "_OTHER"

# Attributes of generative AI.
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
OUTPUT_TYPE = "gen_ai.output.type"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_CHOICES = "gen_ai.request.choice.count"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_REASONING = "gen_ai.request.reasoning.level"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STOP = "gen_ai.request.stop_sequences"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_TOP_P = "gen_ai.request.top_p"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT = "gen_ai.usage.input_tokens"
USAGE_OUTPUT = "gen_ai.usage.output_tokens"
USAGE_CACHED = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - no secret
TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105 - no secret
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"

# Values of the first two.
CHAT = "chat"
COMPLETION = "text_completion"
# Who provides a run; of an attempt it is the kind of its engine.
TOKENWIRE = "tokenwire"

# Our own attributes.
RPC_ID = "tokenwire.rpc.id"
RUN_ID = "tokenwire.run.id"
REQUEST_ID = "tokenwire.request.id"
RUN_DETACHED = "tokenwire.run.detached"
RUN_OUTCOME = "tokenwire.run.outcome"
RUN_STATE = "tokenwire.run.state"
RUN_TAKEN_OVER = "tokenwire.run.taken_over"
RUN_ATTEMPTS = "tokenwire.run.attempts"
RUN_FIRST_TOKEN = "tokenwire.run.time_to_first_token"  # noqa: S105 - no secret
RUN_PER_TOKEN = "tokenwire.run.time_per_output_token"  # noqa: S105 - no secret
CONTENT_CUT = "tokenwire.content.cut"
RESUME_KIND = "tokenwire.resume.kind"
RESUME_SEQ = "tokenwire.resume.seq"
ATTEMPT = "tokenwire.attempt"
ATTEMPT_OUTCOME = "tokenwire.attempt.outcome"
CONTINUATION = "tokenwire.continuation"
STOP_CAUSE = "tokenwire.stop.cause"
PAUSE = "tokenwire.pause"
PAUSE_CAUSE = "tokenwire.pause.cause"
ENGINE = "tokenwire.engine.name"
ENGINE_STATE = "tokenwire.engine.state"
BREAKER_STATE = "tokenwire.breaker.state"
QUEUE_OUTCOME = "tokenwire.queue.outcome"
LIMITER = "tokenwire.limiter"
DECISION = "tokenwire.decision"

# Instruments of others.
RPC_DURATION = "rpc.server.call.duration"
SERVER_DURATION = "gen_ai.server.request.duration"
SERVER_FIRST_TOKEN = "gen_ai.server.time_to_first_token"  # noqa: S105 - no secret
SERVER_PER_TOKEN = "gen_ai.server.time_per_output_token"  # noqa: S105 - no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientNames:
    """The instruments of a client of generative AI, which is what this server is to its engines."""

    duration: str
    first_chunk: str
    per_chunk: str


# In wide use.
CLIENT = ClientNames(
    duration="gen_ai.client.operation.duration",
    first_chunk="gen_ai.client.operation.time_to_first_chunk",
    per_chunk="gen_ai.client.operation.time_per_output_chunk",
)
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - no secret
# What the conventions say since; only for those who opt in.
CLIENT_LATEST = ClientNames(
    duration="gen_ai.client.inference.duration",
    first_chunk="gen_ai.client.inference.time_to_first_chunk",
    per_chunk="gen_ai.client.inference.time_per_output_chunk",
)
LATEST_INPUT = "gen_ai.client.inference.usage.input_tokens"
LATEST_OUTPUT = "gen_ai.client.inference.usage.output_tokens"
LATEST_CACHED = "gen_ai.client.inference.usage.cache_read.input_tokens"
LATEST_REASONING = "gen_ai.client.inference.usage.reasoning.output_tokens"
LATEST_INPUT_SIZE = "gen_ai.client.inference.operation.input_tokens"
LATEST_OUTPUT_SIZE = "gen_ai.client.inference.operation.output_tokens"

# Our own instruments.
RUNS_ACTIVE = "tokenwire.runs.active"
QUEUE_WAIT = "tokenwire.queue.wait"
RESUMES = "tokenwire.resumes"
FAILOVERS = "tokenwire.failovers"
READER_PAUSE = "tokenwire.reader.pause"
READERS_OPEN = "tokenwire.readers.open"
READERS_BEHIND = "tokenwire.readers.behind"
BREAKER = "tokenwire.breaker.state"
BREAKER_OPENINGS = "tokenwire.breaker.openings"
ENGINES = "tokenwire.engine.state"
ENGINE_SILENCE = "tokenwire.engine.silence"
ENGINE_CHOICES = "tokenwire.engine.choices"
DECISIONS = "tokenwire.admission.decisions"
JOURNAL_BYTES = "tokenwire.journal.bytes"
