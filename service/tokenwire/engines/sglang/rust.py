"""What SGLang's HTTP server in Rust passes over, or cannot do, refused before there is a run."""

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Role, Submission
from tokenwire.engines.sglang.chat import needs_chat
from tokenwire.engines.sglang.refusals import unsupported
from tokenwire.engines.sglang.server import Server


def vet_rust(submission: Submission, server: Server) -> None:
    """Raises InvalidRequestError, naming the field."""
    for message in submission.messages:
        if message.role is not Role.TOOL:
            continue
        if message.name:
            raise unsupported("messages.name", "SGLang's Rust server takes no name of a tool")
        if not message.tool_call_id:
            raise InvalidRequestError("messages.tool_call_id", "SGLang's Rust server wants it in a tool's message")
    if not needs_chat(submission, server):
        return
    if submission.tools:
        # A chat with tools has an implementation of its own there. It passes over a third of the fields, such as top_k,
        # stop_token_ids or cache_salt, does not say which stop string was met, tells calls as a whole only, and nothing
        # at all of one that is cut off.
        raise unsupported("tools.name", "SGLang's Rust server loses calls that are cut off; its Python server does not")
    if submission.constraint is not None and submission.constraint.structural_tag is not None:
        raise unsupported("constraint.structural_tag", "SGLang's Rust server has it without reasoning only")
