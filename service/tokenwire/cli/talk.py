"""A talk: the history is kept here, since the server knows single requests only."""

# Line editing, and the messages so far on the arrow keys.
import readline  # noqa: F401
import sys

from tokenwire.cli.asking import chat_answer
from tokenwire.cli.connection import Connection
from tokenwire.cli.failure import CommandError
from tokenwire.cli.options import AnswerOptions
from tokenwire.cli.saying import say
from tokenwire.v1.message_pb2 import ROLE_ASSISTANT, Message

EXIT = "/exit"


def talk(connection: Connection, options: AnswerOptions) -> None:
    """Asks for messages and prints answers until Ctrl-D or /exit. Ctrl-C stops an answer, or ends at the prompt."""
    if not options.quiet:
        print(f"Ctrl-C stops an answer; Ctrl-D or {EXIT} ends.", file=sys.stderr)
    history: list[Message] = []
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return
        if text.strip() == EXIT:
            return
        if not text.strip():
            continue
        history.append(Message(content=text))
        answer = chat_answer(connection, history, options)
        try:
            answer.read()
        except CommandError as failure:
            say(failure.report.line())
        except KeyboardInterrupt:
            # What was written until then was seen, and may be talked about.
            pass
        if answer.text:
            history.append(Message(role=ROLE_ASSISTANT, content=answer.text))
        else:
            history.pop()
