"""Answers to what the options ask for."""

from collections.abc import Sequence

from tokenwire.cli.connection import Connection
from tokenwire.cli.options import AnswerOptions
from tokenwire.cli.printing import Output, output_for
from tokenwire.cli.requests import chat_request, generate_request, new_request_id
from tokenwire.cli.stream import Answer
from tokenwire.cli.timings import Timed
from tokenwire.v1.message_pb2 import Message


def prompt_answer(connection: Connection, prompt: str, options: AnswerOptions) -> Answer:
    """Returns the answer to a prompt, to be read."""
    request_id = options.request_id or new_request_id()
    request = generate_request(prompt, options, request_id)
    return Answer(
        connection,
        lambda notes: connection.client.stream(request, timeout=options.timeout, on_reconnect=notes),
        _output(connection, options),
        stays=request_id if options.detached else "",
    )


def chat_answer(connection: Connection, messages: Sequence[Message], options: AnswerOptions) -> Answer:
    """Returns the answer to a chat, to be read."""
    request_id = options.request_id or new_request_id()
    request = chat_request(messages, options, request_id)
    return Answer(
        connection,
        lambda notes: connection.client.stream_chat(request, timeout=options.timeout, on_reconnect=notes),
        _output(connection, options),
        stays=request_id if options.detached else "",
    )


def _output(connection: Connection, options: AnswerOptions) -> Output:
    output = output_for(as_json=options.as_json, quiet=options.quiet, raw=options.raw, choices=options.n or 1)
    if not options.timings:
        return output
    return Timed(output, as_json=options.as_json, connection_ms=connection.made(options.timeout))
