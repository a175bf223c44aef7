"""The settings of what is served: addresses, engines, times, runs and their journal."""

from typing import Annotated

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from tokenwire.settings.address import is_loopback, split_listen
from tokenwire.settings.engine import EngineSettings
from tokenwire.settings.kinds import (
    Engines,
    Failover,
    FilePath,
    FolderPath,
    JournalOutage,
    JournalPlace,
    JournalSync,
    Key,
    ListenAddress,
    Password,
    Seconds,
    SecondsOrNone,
    Transport,
)
from tokenwire.settings.problems import conflict
from tokenwire.settings.wording import Wording, told


class ServiceSettings(BaseModel, frozen=True):
    """What is served, and how; checked when made."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, validate_default=True)

    listen: Annotated[
        ListenAddress,
        Field(description="The address to serve gRPC on: host:port or [::1]:port; port 0 takes a free one."),
    ] = "127.0.0.1:50051"
    insecure: Annotated[
        bool,
        Field(
            description="Allows a listen address that other machines can reach, "
            "which anybody may then use until TLS and authentication come."
        ),
    ] = False
    transport: Annotated[
        Transport,
        Field(
            description="What speaks HTTP/2 with the clients: http2 is tokenwire's own, on Python's asyncio, and costs "
            "less CPU per token; grpc_aio is gRPC's C core."
        ),
    ] = "http2"
    reflection: Annotated[
        bool, Field(description="Serves gRPC reflection, so that grpcurl and its like need no .proto files.")
    ] = True
    message_max_bytes: Annotated[
        int, Field(gt=0, le=2**31 - 1, description="The size of the largest gRPC request or response, in bytes.")
    ] = 4_194_304
    streams_max: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="How many calls that stream or wait for a run may be open at once, and a tenth more for "
            "resumes; further ones are refused; 0 means as many as there are file descriptors for, which is never "
            "exceeded.",
        ),
    ] = 1000

    heartbeat_seconds: Annotated[
        Seconds, Field(description="The silence of a stream after which it says that it lives, in seconds.")
    ] = 10
    keepalive_seconds: Annotated[
        Seconds, Field(description="The time between two pings to a client that is silent, in seconds.")
    ] = 10
    ping_timeout_seconds: Annotated[
        Seconds, Field(description="How long a client may take to answer a ping before it counts as gone, in seconds.")
    ] = 5

    default_model: Annotated[
        str,
        Field(description="The model of a request that names none."),
        Wording(default="the first model of the first engine"),
    ] = ""
    engines: Annotated[
        Engines,
        Field(
            description="The engines, in order of preference: as a flag, once for each, scripted, llamacpp, or "
            "vllm=URL, sglang=URL, ollama=URL, openai=URL, with NAME: before it or not; as a variable, a JSON list; "
            "in the file, [[engines]] tables.",
        ),
        Wording(default="one embedded llama.cpp"),
    ] = (EngineSettings(name="embedded", kind="llamacpp"),)

    model_path: Annotated[
        FilePath,
        Field(description="The GGUF file of the embedded engine."),
        Wording(default="the bundled SmolLM2-135M-Instruct"),
    ] = ""
    cache_dir: Annotated[
        FolderPath,
        Field(description="The folder where fetched models are kept."),
        Wording(default="the user's cache folder"),
    ] = Field(default_factory=lambda: platformdirs.user_cache_path("tokenwire", appauthor=False))
    slots: Annotated[
        int, Field(gt=0, le=1024, description="How many requests the embedded engine answers at the same time.")
    ] = 8
    context_per_slot: Annotated[
        int,
        Field(
            gt=0, le=2**20, description="How many tokens of prompt and answer fit in one slot of the embedded engine."
        ),
    ] = 2048
    threads: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="The threads of the embedded engine; 0 means as many as there are cores, at most 4.",
        ),
    ] = 0

    connect_seconds: Annotated[
        Seconds, Field(description="How long a connection to an engine may take, in seconds.")
    ] = 5
    reply_seconds: Annotated[
        Seconds, Field(description="How long an engine may take for a reply that is not a stream, in seconds.")
    ] = 30
    first_token_seconds: Annotated[
        Seconds, Field(description="How long an engine may take for the first token of a run, in seconds.")
    ] = 120
    stall_seconds: Annotated[
        Seconds,
        Field(
            description="How long an engine may be silent between two tokens of a run, and a client may leave a "
            "message unread, in seconds."
        ),
    ] = 30
    max_duration_seconds: Annotated[Seconds, Field(description="How long a run may take in all, in seconds.")] = 3600
    load_seconds: Annotated[
        Seconds, Field(description="How long a call waits for a model that is still loading, in seconds.")
    ] = 600
    engine_check_seconds: Annotated[
        Seconds, Field(description="The time between two checks of an engine's health, in seconds.")
    ] = 5
    engine_stop_seconds: Annotated[
        Seconds,
        Field(description="How long an engine may take to stop a run before it is torn out of it, in seconds."),
    ] = 1
    engine_restart_min_seconds: Annotated[
        Seconds,
        Field(description="The wait before the first restart of a failed embedded engine, in seconds; it then grows."),
    ] = 0.5
    engine_restart_max_seconds: Annotated[
        Seconds, Field(description="The longest wait before a restart of a failed embedded engine, in seconds.")
    ] = 30

    orphan_grace_seconds: Annotated[
        SecondsOrNone,
        Field(description="How long a run without a reader goes on if its request does not say, in seconds."),
    ] = 0
    orphan_grace_max_seconds: Annotated[
        SecondsOrNone,
        Field(description="The longest time without a reader that a request may ask for, in seconds."),
    ] = 300
    retention_seconds: Annotated[
        SecondsOrNone, Field(description="How long a finished run can still be read, in seconds.")
    ] = 300
    cancelled_ids_max: Annotated[
        int, Field(ge=0, description="How many request ids are kept that were cancelled before their request came.")
    ] = 1000
    batch_in_flight_max: Annotated[
        int, Field(gt=0, le=1024, description="The most items that a batch may have in flight.")
    ] = 64
    batch_items_max: Annotated[
        int,
        Field(
            gt=0,
            description="How many items all batches may have together, those that have ended and can still be read "
            "included.",
        ),
    ] = 100_000
    resume_seconds: Annotated[
        Seconds,
        Field(
            description="How long a run waits for a reader at least when it was the server that lost or left the last "
            "one, in seconds."
        ),
    ] = 30

    failover: Annotated[
        Failover,
        Field(
            description="What happens to a run whose engine fails if its request does not say: it fails, is tried "
            "again before its first token, or goes on in the middle of its answer, too."
        ),
    ] = "continue"
    failover_seconds: Annotated[
        Seconds, Field(description="How long a run whose engine failed may go without a new token, in seconds.")
    ] = 30
    attempts_max: Annotated[
        int, Field(gt=0, le=100, description="How many attempts a run has to get its next token.")
    ] = 5

    journal: Annotated[
        JournalPlace,
        Field(
            description="Where runs are written: memory; file:FOLDER, which survives a restart; or redis://HOST:PORT, "
            "which several servers share."
        ),
    ] = "memory"
    journal_max_bytes: Annotated[
        int, Field(gt=0, description="The size of all runs together that this server keeps in memory, in bytes.")
    ] = 268_435_456
    journal_key: Annotated[
        Key,
        Field(
            description="The key with which a journal outside this process is encrypted: 32 bytes in Base64, the same "
            "for all servers that share it."
        ),
        Wording(default="not encrypted"),
    ] = SecretStr("")
    journal_outage: Annotated[
        JournalOutage,
        Field(
            description="What happens while the journal cannot be written: runs go on without it and are written "
            "later, or they fail."
        ),
    ] = "continue"
    journal_fsync: Annotated[
        JournalSync,
        Field(
            description="When a file journal is forced to the disk: always before a reader sees an event, at an "
            "interval, or never; only a failure of the machine makes a difference."
        ),
    ] = "interval"
    journal_fsync_seconds: Annotated[Seconds, Field(description="That interval, in seconds.")] = 1
    journal_segment_bytes: Annotated[
        int, Field(ge=65_536, le=2**31 - 1, description="The size at which a file journal begins a new file, in bytes.")
    ] = 67_108_864
    journal_prefix: Annotated[
        str, Field(min_length=1, max_length=64, description="What the names of all keys in Redis begin with.")
    ] = "tokenwire"
    lease_seconds: Annotated[
        Seconds,
        Field(
            description="How long the runs of a server that is silent stay its own in Redis, in seconds; then another "
            "one goes on with them."
        ),
    ] = 10
    redis_username: Annotated[str, Field(description="The user at Redis."), Wording(default="none")] = ""
    redis_password: Annotated[Password, Field(description="The password at Redis."), Wording(default="none")] = (
        SecretStr("")
    )

    drain_seconds: Annotated[
        SecondsOrNone, Field(description="How long a stopping server lets its runs go on, in seconds.")
    ] = 30
    flush_seconds: Annotated[
        Seconds,
        Field(description="How long readers have for the last events when a server has stopped its runs, in seconds."),
    ] = 2

    @field_validator("insecure")
    @classmethod
    def _allows_the_address(cls, insecure: bool, info: ValidationInfo) -> bool:
        listen = info.data.get("listen")
        if listen and not insecure and not is_loopback(split_listen(listen)[0]):
            raise conflict(
                "listen",
                "insecure",
                "wants a loopback address unless insecure is true: until TLS and authentication come, anybody who "
                "reaches another address can use it",
            )
        return insecure

    @field_validator("engines")
    @classmethod
    def _has_unique_names(cls, engines: tuple[EngineSettings, ...]) -> tuple[EngineSettings, ...]:
        names = [engine.name for engine in engines]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise told(f"wants a name of its own for each engine, such as NAME:openai=URL; twice: {', '.join(twice)}")
        return engines

    @field_validator("engine_restart_max_seconds", "orphan_grace_max_seconds")
    @classmethod
    def _is_not_below(cls, most: float, info: ValidationInfo) -> float:
        name = str(info.field_name)
        other = {
            "engine_restart_max_seconds": "engine_restart_min_seconds",
            "orphan_grace_max_seconds": "orphan_grace_seconds",
        }[name]
        if info.data.get(other, most) > most:
            raise conflict(other, name, f"wants a number of seconds of at most {name}")
        return most
