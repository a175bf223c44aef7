"""Options that several commands have."""

from dataclasses import dataclass
from typing import Annotated

import typer

DEFAULT_TARGET = "127.0.0.1:50051"
# A dropped connection is taken up again; a run that nobody comes back to ends after this.
DEFAULT_GRACE_SECONDS = 30.0
# Together they outlast that.
DEFAULT_RETRIES = 20

Target = Annotated[
    str, typer.Option("--target", envvar="TOKENWIRE_TARGET", metavar="HOST:PORT", help="The server's address.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line; errors too.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.001, max=86400, metavar="SECONDS", help="Give up after so many seconds."),
]
Retries = Annotated[
    int, typer.Option("--retries", min=0, help="After a broken line, try so often to go on before giving up.")
]
Buffer = Annotated[
    str | None,
    typer.Option("--buffer", metavar="none|size:N", help="How the server cuts the text: as it comes, or in N bytes."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the text and nothing else.")]
Raw = Annotated[bool, typer.Option("--raw", help="Leave control codes in the text, on a terminal too.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What `generate` and `chat` can be told; None leaves it to the server."""

    target: Target = DEFAULT_TARGET
    model: Annotated[str, typer.Option("--model", "-m", help="The model; the server's default if not given.")] = ""
    system: Annotated[str, typer.Option("--system", help="Instructions for the model.")] = ""
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="At most so many tokens.")] = None
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="0 takes the most probable token; up to 2.")
    ] = None
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Keep the most probable tokens that sum to this; up to 1.")
    ] = None
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=2**32 - 2, help="Repeat the same answer.")] = None
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="Stop at this text; may be repeated.")
    ] = None
    n: Annotated[int | None, typer.Option("--n", min=1, max=128, help="So many answers.")] = None
    request_id: Annotated[
        str,
        typer.Option("--request-id", help="The same id with the same request finds the same run; made if not given."),
    ] = ""
    detached: Annotated[
        bool, typer.Option("--detached", help="The run goes on to its end, even after Ctrl-C here.")
    ] = False
    orphan_grace: Annotated[
        float,
        typer.Option("--orphan-grace", min=0, max=86400, metavar="SECONDS", help="The run waits so long for a reader."),
    ] = DEFAULT_GRACE_SECONDS
    buffer: Buffer = None
    timeout: Timeout = None
    retries: Retries = DEFAULT_RETRIES
    as_json: Json = False
    timings: Annotated[
        bool, typer.Option("--timings", help="Tell where the time went, on standard error, or as a last line of JSON.")
    ] = False
    quiet: Quiet = False
    raw: Raw = False
