"""`tokenwire chat`: one message, or a talk."""

from typing import Annotated

import typer

from tokenwire.cli.options import AnswerOptions
from tokenwire.cli.signature import with_options


@with_options(AnswerOptions)
def chat(
    message: Annotated[
        str | None,
        typer.Argument(
            help="One message; - takes standard input. Without it: a talk, ended by Ctrl-D or /exit.",
            show_default=False,
        ),
    ] = None,
    *,
    options: AnswerOptions,
) -> None:
    """Streams the answer to a message, or talks with a model."""
    # gRPC is loaded only when it is used: help and completion are to be quick.
    from tokenwire.cli.asking import chat_answer
    from tokenwire.cli.connection import Connection
    from tokenwire.cli.prompt import given_or_piped
    from tokenwire.cli.talk import talk
    from tokenwire.v1.message_pb2 import Message

    text = given_or_piped(message)
    if text is None and (options.as_json or options.request_id):
        raise typer.BadParameter("a talk takes neither --json nor --request-id.", param_hint="MESSAGE")
    with Connection(options.target, as_json=options.as_json, retries=options.retries) as connection:
        if text is None:
            talk(connection, options)
        else:
            chat_answer(connection, [Message(content=text)], options).read()
