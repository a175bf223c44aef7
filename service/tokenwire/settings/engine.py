"""The settings of one engine."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from tokenwire.settings.address import checked_url
from tokenwire.settings.wording import Wording, told

EngineKind = Literal["llamacpp", "openai", "scripted"]

URL_WANTED = "an http:// or https:// address without user name, query or fragment"
# 30 days. A time goes over the wire as uint32 milliseconds at most.
SECONDS_MAX = 2_592_000


def _key(key: SecretStr) -> SecretStr:
    # It becomes a header; a line break, such as the last one of a file, would fail with every call.
    if not all("!" <= character <= "~" for character in key.get_secret_value()):
        raise ValueError("not a key")
    return key


class EngineSettings(BaseModel, frozen=True):
    """One engine: its name, its kind, and how to reach it."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, validate_default=True)

    WANTED: ClassVar[str] = (
        "an engine: scripted, llamacpp, openai=URL or NAME:openai=URL as a flag, a table or JSON object elsewhere"
    )

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="The name in logs, metrics and events."),
        Wording(wanted="a name of at most 63 letters, digits, dots, dashes and underscores"),
    ]
    kind: Annotated[EngineKind, Field(description="How to speak to the engine.")]
    url: Annotated[
        str,
        Field(description="The address of an engine of kind openai, with or without /v1."),
        Wording(wanted=URL_WANTED),
    ] = ""
    model: Annotated[str, Field(description="The model to use; empty means those that the engine tells.")] = ""
    api_key: Annotated[
        SecretStr,
        AfterValidator(_key),
        Field(description="Sent to the engine as a bearer token."),
        Wording(wanted="printable ASCII text without spaces or line breaks"),
    ] = SecretStr("")
    timeout_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            le=SECONDS_MAX,
            allow_inf_nan=False,
            description="Seconds a run may take on this engine; unset means max_duration_seconds.",
        ),
        Wording(wanted=f"a number of seconds above 0 and of at most {SECONDS_MAX}"),
    ] = None

    @field_validator("url")
    @classmethod
    def _fits_the_kind(cls, url: str, info: ValidationInfo) -> str:
        kind = info.data.get("kind")
        if kind == "openai" and not url:
            raise told(f"an engine of kind openai needs {URL_WANTED}")
        if kind in ("llamacpp", "scripted") and url:
            raise told(f"an engine of kind {kind} takes no url")
        return checked_url(url) if url else ""


def engine_of_flag(text: str) -> object:
    """Returns the fields of `scripted`, `llamacpp`, `openai=URL`, each after `NAME:` or not; other text as it is."""
    left, _, url = text.partition("=")
    name, _, kind = left.rpartition(":")
    return {"name": name or kind, "kind": kind, "url": url} if kind in get_args(EngineKind) else text
