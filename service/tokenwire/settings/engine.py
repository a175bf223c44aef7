"""The settings of one engine."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from tokenwire.settings.address import checked_url
from tokenwire.settings.wording import Wording, told

EngineKind = Literal["llamacpp", "vllm", "sglang", "ollama", "openai", "scripted"]
# Engines inside this process or its children; the others are at an address.
_OWN_KINDS = ("llamacpp", "scripted")

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
        "an engine: scripted, llamacpp, KIND=URL or NAME:KIND=URL with vllm, sglang, ollama or openai for KIND "
        "as a flag, a table or JSON object elsewhere"
    )

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="The name in logs, metrics and events."),
        Wording(wanted="a name of at most 63 letters, digits, dots, dashes and underscores"),
    ]
    kind: Annotated[EngineKind, Field(description="How to speak to the engine.")]
    url: Annotated[
        str,
        Field(description="The address of an engine of kind vllm, sglang, ollama or openai, with or without /v1."),
        Wording(wanted=URL_WANTED),
    ] = ""
    model: Annotated[str, Field(description="The model to use; empty means those that the engine tells.")] = ""
    alias: Annotated[
        str,
        Field(
            max_length=255,
            description="The name by which requests ask for that model; engines with the same one stand in for each "
            "other.",
        ),
    ] = ""
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
        if kind in _OWN_KINDS and url:
            raise told(f"an engine of kind {kind} takes no url")
        if kind is not None and kind not in _OWN_KINDS and not url:
            raise told(f"an engine of kind {kind} needs {URL_WANTED}")
        return checked_url(url) if url else ""


def engine_of_flag(text: str) -> object:
    """Returns the fields of `scripted`, `llamacpp`, `vllm=URL` and so on, after `NAME:` or not; other text as it is."""
    left, _, url = text.partition("=")
    name, _, kind = left.rpartition(":")
    return {"name": name or kind, "kind": kind, "url": url} if kind in get_args(EngineKind) else text
