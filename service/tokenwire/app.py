"""Makes every object of a server, in the order of the way of a request."""

import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from opentelemetry import trace

from tokenwire.dispatch.batches import Batches, BatchLimits
from tokenwire.dispatch.dispatcher import Dispatcher, Patience
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.runs import Lifetimes, Runs
from tokenwire.domain.context import LOCAL_TENANT, Clock, RequestContext
from tokenwire.engines.engine import Engine
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.ollama.adapter import OllamaEngine
from tokenwire.engines.openai.adapter import OpenAIEngine
from tokenwire.engines.remote import RemoteEngine
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.engines.sglang.adapter import SglangEngine
from tokenwire.engines.vllm.adapter import VllmEngine
from tokenwire.interceptors.interceptor import stacked
from tokenwire.interceptors.stack import stack
from tokenwire.interceptors.validation import check_rules
from tokenwire.journal.memory import MemoryJournal
from tokenwire.render.renderer import Renderer
from tokenwire.rpc.batch import BatchServicer
from tokenwire.rpc.batch_items import Items
from tokenwire.rpc.events import encode
from tokenwire.rpc.generate import ChatServicer, GenerateServicer
from tokenwire.rpc.methods import endpoints
from tokenwire.rpc.models import ModelServicer
from tokenwire.rpc.reading import Reader
from tokenwire.rpc.requests import delivery_of
from tokenwire.rpc.runs import RunServicer
from tokenwire.rpc.server_info import ServerServicer
from tokenwire.rpc.status import encode_error
from tokenwire.rpc.submission import Loading, Submitter
from tokenwire.settings import EngineSettings, Settings
from tokenwire.transport.grpc_aio import GrpcServer, server_options

# Told of the model's download: bytes done, bytes in all, and what is being done.
OnProgress = Callable[[int, int, str], None]

SYSTEM_CLOCK = Clock(monotonic=time.monotonic, wall=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """What a server holds."""

    settings: Settings
    fleet: Fleet
    runs: Runs
    batches: Batches
    transport: GrpcServer
    clock: Clock


def build(
    settings: Settings,
    engines: list[Engine] | None = None,
    on_progress: OnProgress | None = None,
) -> App:
    """Makes a server's objects.

    Args:
        settings: all that can be set.
        engines: take the place of those in the settings.
        on_progress: is told of the model's download.
    """
    clock = SYSTEM_CLOCK

    journal = MemoryJournal(settings.journal_max_bytes)
    fleet = Fleet(
        engines if engines is not None else make_engines(settings, clock, on_progress),
        settings.default_model,
        {one.name: one.timeout_seconds for one in settings.engines if one.timeout_seconds is not None},
    )
    patience = Patience(first_token=settings.first_token_seconds, stall=settings.stall_seconds)
    dispatcher = Dispatcher(fleet, journal, patience)
    lifetimes = Lifetimes(
        orphan_grace=settings.orphan_grace_seconds,
        orphan_grace_max=settings.orphan_grace_max_seconds,
        retention=settings.retention_seconds,
        max_duration=settings.max_duration_seconds,
        cancelled_ids=settings.cancelled_ids_max,
        stop=settings.engine_stop_seconds,
    )
    runs = Runs(dispatcher, journal, lifetimes, clock, new_id=lambda: f"run_{secrets.token_hex(12)}")

    submitter = Submitter(fleet, runs, Renderer(), Loading(limit=settings.load_seconds))
    reader = Reader(runs)
    batch_limits = BatchLimits(
        in_flight=settings.batch_in_flight_max,
        items=settings.batch_items_max,
        orphan_grace=settings.orphan_grace_seconds,
        orphan_grace_max=settings.orphan_grace_max_seconds,
        retention=settings.retention_seconds,
    )
    batches = Batches(batch_limits, clock, new_id=lambda: f"batch_{secrets.token_hex(12)}")
    items = Items(submitter, runs, reader, check=check_rules, clock=clock, message_max_bytes=settings.message_max_bytes)
    servicers = {
        "tokenwire.v1.GenerateService": GenerateServicer(submitter, reader),
        "tokenwire.v1.ChatService": ChatServicer(submitter, reader),
        "tokenwire.v1.ModelService": ModelServicer(fleet, submitter),
        "tokenwire.v1.RunService": RunServicer(runs, reader),
        "tokenwire.v1.BatchService": BatchServicer(batches, items),
        "tokenwire.v1.ServerService": ServerServicer(),
    }

    interceptors = stack(trace.get_tracer("tokenwire"), clock.monotonic, delivery_of)
    transport = GrpcServer(
        endpoints(servicers),
        layered=lambda handler: stacked(handler, interceptors),
        encode=encode,
        encode_error=encode_error,
        new_context=lambda: RequestContext(
            rpc_id=secrets.token_hex(8), tenant=LOCAL_TENANT, received_at=clock.monotonic()
        ),
        options=server_options(
            settings.message_max_bytes,
            keepalive_seconds=settings.keepalive_seconds,
            ping_timeout_seconds=settings.ping_timeout_seconds,
        ),
    )
    return App(settings=settings, fleet=fleet, runs=runs, batches=batches, transport=transport, clock=clock)


def make_engines(settings: Settings, clock: Clock, on_progress: OnProgress | None = None) -> list[Engine]:
    """Makes the engines that the settings name, in their order."""
    return [_engine(one, settings, clock, on_progress) for one in settings.engines]


_REMOTE: Mapping[str, type[RemoteEngine]] = {
    "vllm": VllmEngine,
    "sglang": SglangEngine,
    "ollama": OllamaEngine,
    "openai": OpenAIEngine,
}


def _engine(chosen: EngineSettings, settings: Settings, clock: Clock, on_progress: OnProgress | None) -> Engine:
    match chosen.kind:
        case "llamacpp":
            return LlamaCppEngine(
                name=chosen.name,
                cache_dir=settings.cache_dir,
                log_dir=settings.cache_dir / "logs",
                clock=clock,
                rng=random.Random(),
                model_path=Path(settings.model_path) if settings.model_path else None,
                slots=settings.slots,
                context_per_slot=settings.context_per_slot,
                threads=settings.threads,
                start_timeout=settings.load_seconds,
                restart_pause_min=settings.engine_restart_min_seconds,
                restart_pause_max=settings.engine_restart_max_seconds,
                connect_timeout=settings.connect_seconds,
                reply_timeout=settings.reply_seconds,
                on_progress=on_progress,
            )
        case "scripted":
            return ScriptedEngine(chosen.name, model=chosen.model or "scripted", seconds_per_token=0.02)
        case "vllm" | "sglang" | "ollama" | "openai":
            return _REMOTE[chosen.kind](
                name=chosen.name,
                url=chosen.url,
                model=chosen.model,
                api_key=chosen.api_key.get_secret_value(),
                connect_timeout=settings.connect_seconds,
                reply_timeout=settings.reply_seconds,
                check_interval=settings.engine_check_seconds,
                clock=clock,
            )
        case _:
            assert_never(chosen.kind)
