"""The systems' names that the plan knows; those that a goal compares stand with the goals."""

from bench.goals import BARE, FILE_JOURNAL, IDIOMATIC, LITELLM, REDIS_JOURNAL, SGLANG_ROUTER, TELEMETRY_OFF, TOKENWIRE

OURS = TOKENWIRE

CHAT = f"{OURS}, chat"
GENERATE = f"{OURS}, SGLang"
# On the transport that is not the default.
GRPC_AIO = f"{OURS}, grpc.aio"

# tokenwire as it is by default, but for what the engine speaks or what speaks with the clients.
PACED_ONLY = frozenset({CHAT, GENERATE, GRPC_AIO})
# What the goals compare.
GOAL_ROWS = frozenset({OURS, FILE_JOURNAL, REDIS_JOURNAL, TELEMETRY_OFF, BARE, IDIOMATIC, SGLANG_ROUTER, LITELLM})


def is_ours(name: str) -> bool:
    """Tells whether a row is tokenwire, in whatever setting."""
    return name == OURS or name.startswith(f"{OURS},")
