"""What a request may say, by keyword."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from tokenwire.v1.delivery_pb2 import Delivery
from tokenwire.v1.generate_service_pb2 import TokenIds
from tokenwire.v1.message_pb2 import Message, Reasoning, Tool, ToolChoice
from tokenwire.v1.output_pb2 import Output
from tokenwire.v1.run_pb2 import FailoverPolicy, KvOptions, Limits
from tokenwire.v1.sampling_pb2 import Constraint, Sampling, SamplingPreset, Stopping

# A message of a chat: the user's text, a role and a text, or the message itself.
Said = str | tuple[str, str] | Message


class Options(TypedDict, total=False):
    """Options of a prompt and of a chat; what is left out is the server's to choose, but for the last group.

    The groups of the contract (`sampling`, `stopping`, `constraint` ...) are given as they are, and single fields of
    the first three by name, which win. `request_id` is made if it is not given; `orphan_grace` is 30 seconds.
    """

    model: str
    system: str
    sampling: Sampling
    preset: SamplingPreset.ValueType
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    n: int
    stopping: Stopping
    max_tokens: int
    min_tokens: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    constraint: Constraint
    json_schema: str
    regex: str
    grammar: str
    output: Output
    delivery: Delivery
    limits: Limits
    kv: KvOptions
    request_id: str
    orphan_grace: float
    detached: bool
    labels: Mapping[str, str]
    failover: FailoverPolicy.ValueType
    priority: int


class ChatOptions(Options, total=False):
    """Options of a chat alone."""

    tools: Sequence[Tool]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    reasoning: Reasoning


# What a prompt may be.
Prompt = str | Sequence[int] | TokenIds

SAMPLING = (
    "preset", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "seed", "n",
)  # fmt: skip
STOPPING = ("max_tokens", "min_tokens", "stop", "stop_token_ids", "ignore_eos")
CONSTRAINT = ("json_schema", "regex", "grammar")
RUN = ("request_id", "detached", "labels", "failover", "priority")
