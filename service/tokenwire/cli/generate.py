"""`tokenwire generate`."""

from typing import Annotated

import typer

from tokenwire.cli.options import AnswerOptions
from tokenwire.cli.signature import with_options


@with_options(AnswerOptions)
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; - or nothing takes standard input.", show_default=False)
    ] = None,
    *,
    options: AnswerOptions,
) -> None:
    """Streams the answer to a prompt; a pipe gets the text alone."""
    # gRPC is loaded only when it is used: help and completion are to be quick.
    from tokenwire.cli.asking import prompt_answer
    from tokenwire.cli.connection import Connection
    from tokenwire.cli.prompt import given_or_piped

    text = given_or_piped(prompt)
    if text is None:
        raise typer.BadParameter("give a PROMPT, or pipe one in.", param_hint="PROMPT")
    with Connection(options.target, as_json=options.as_json, retries=options.retries) as connection:
        prompt_answer(connection, text, options).read()
