"""Makes every object of a server, in the order of the way of a request."""

import base64
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from opentelemetry import metrics, trace

from tokenwire.admin.readiness import Readiness, engine_states
from tokenwire.dispatch.batches import Batches, BatchLimits
from tokenwire.dispatch.dispatcher import Dispatcher, Patience
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.lifetimes import Lifetimes
from tokenwire.dispatch.runs import Runs
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.context import LOCAL_TENANT, Clock, RequestContext
from tokenwire.domain.request import FailoverPolicy
from tokenwire.engines.aliased import AliasedEngine
from tokenwire.engines.engine import Engine
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.ollama.adapter import OllamaEngine
from tokenwire.engines.openai.adapter import OpenAIEngine
from tokenwire.engines.remote import RemoteEngine
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.engines.sglang.adapter import SglangEngine
from tokenwire.engines.vllm.adapter import VllmEngine
from tokenwire.interceptors.admission import Admission, with_reserve, without_reserve
from tokenwire.interceptors.interceptor import stacked
from tokenwire.interceptors.stack import stack
from tokenwire.interceptors.validation import check_rules
from tokenwire.journal.file.journal import FileJournal
from tokenwire.journal.journal import Journal, JournalError
from tokenwire.journal.memory import MemoryJournal
from tokenwire.journal.sealing import Sealer
from tokenwire.render.renderer import Renderer
from tokenwire.rpc.batch import BatchServicer
from tokenwire.rpc.batch_items import Items
from tokenwire.rpc.events import encode
from tokenwire.rpc.generate import ChatServicer, GenerateServicer
from tokenwire.rpc.methods import SERVICES, endpoints, reflection_pool
from tokenwire.rpc.models import ModelServicer
from tokenwire.rpc.reading import Reader
from tokenwire.rpc.requests import delivery_of
from tokenwire.rpc.runs import RunServicer
from tokenwire.rpc.server_info import ServerServicer
from tokenwire.rpc.status import encode_error
from tokenwire.rpc.submission import Loading, Submitter
from tokenwire.rpc.watch import StreamLimits
from tokenwire.settings import EngineSettings, Settings, Transport, split_listen
from tokenwire.telemetry import names
from tokenwire.telemetry.decisions import Decisions
from tokenwire.telemetry.gauges import observe
from tokenwire.telemetry.instruments import Instruments
from tokenwire.telemetry.run_observer import TracingObserver
from tokenwire.transport.call import Endpoint
from tokenwire.transport.descriptors import obtainable, shares
from tokenwire.transport.health import Health
from tokenwire.transport.methods import Methods
from tokenwire.transport.server import Server, ServerOptions

if TYPE_CHECKING:
    from tokenwire.admin.port import AdminPort, Exposition

# Told of the model's download: bytes done, bytes in all, and what is being done.
OnProgress = Callable[[int, int, str], None]

SYSTEM_CLOCK = Clock(monotonic=time.monotonic, wall=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """What a server holds."""

    settings: Settings
    fleet: Fleet
    journal: Journal
    runs: Runs
    batches: Batches
    transport: Server
    health: Health
    clock: Clock
    readiness: Readiness
    admin: "AdminPort | None" = None


def build(
    settings: Settings,
    engines: list[Engine] | None = None,
    on_progress: OnProgress | None = None,
    scrape: "Exposition | None" = None,
) -> App:
    """Makes a server's objects.

    Args:
        settings: all that can be set.
        engines: take the place of those in the settings.
        on_progress: is told of the model's download.
        scrape: what the admin port tells as metrics.
    """
    clock = SYSTEM_CLOCK
    tracer, meter = trace.get_tracer(names.SCOPE), metrics.get_meter(names.SCOPE)
    instruments = Instruments(meter, latest=settings.semconv_opt_in)

    journal = make_journal(settings, clock)
    fleet = Fleet(
        engines if engines is not None else make_engines(settings, clock, on_progress),
        settings.default_model,
        {one.name: one.timeout_seconds for one in settings.engines if one.timeout_seconds is not None},
        now=clock.monotonic,
        rng=random.Random(),
    )
    patience = Patience(
        first_token=settings.first_token_seconds, stall=settings.stall_seconds, stop=settings.engine_stop_seconds
    )
    failover = Failover(
        policy=FailoverPolicy[settings.failover.upper()],
        attempts=settings.attempts_max,
        seconds=settings.failover_seconds,
    )
    renderer = Renderer()
    dispatcher = Dispatcher(fleet, journal, patience, renderer.render, failover, random.Random())
    lifetimes = Lifetimes(
        orphan_grace=settings.orphan_grace_seconds,
        orphan_grace_max=settings.orphan_grace_max_seconds,
        retention=settings.retention_seconds,
        max_duration=settings.max_duration_seconds,
        cancelled_ids=settings.cancelled_ids_max,
        stop=settings.engine_stop_seconds,
        resume=settings.resume_seconds,
    )
    observer = TracingObserver(
        tracer,
        instruments,
        clock.monotonic,
        is_model=lambda model: model in fleet.models(),
        capture_content=settings.capture_content,
    )
    runs = Runs(dispatcher, journal, lifetimes, clock, new_id=journal.new_id, observer=observer)
    observe(meter, fleet=fleet, presence=runs.presence, journal=journal, observer=observer)

    submitter = Submitter(fleet, runs, renderer, Loading(limit=settings.load_seconds))
    limits = StreamLimits(heartbeat=settings.heartbeat_seconds, stall=settings.stall_seconds, resume=lifetimes.resume)
    reader = Reader(runs, limits)
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
        "tokenwire.v1.BatchService": BatchServicer(batches, items, limits),
        "tokenwire.v1.ServerService": ServerServicer(journal.name),
    }

    room = shares(with_reserve(settings.streams_max), obtainable())
    admission = Admission(
        without_reserve(room.streams), rng=random.Random(), tell=partial(Decisions(meter).tell, "streams")
    )
    interceptors = stack(tracer, clock.monotonic, admission, delivery_of, instruments.rpc_duration)
    health = Health()
    numbers = random.Random()
    methods = Methods(
        [*endpoints(servicers), *health.endpoints(), *_reflection(settings)],
        layered=lambda handler: stacked(handler, interceptors),
        encode=encode,
        encode_error=encode_error,
        new_context=lambda: RequestContext(
            # No secret, and one that is lets another thread take the interpreter in the middle of a call's set-up.
            rpc_id=f"{numbers.getrandbits(64):016x}",
            tenant=LOCAL_TENANT,
            received_at=clock.monotonic(),
        ),
        message_max_bytes=settings.message_max_bytes,
    )
    options = ServerOptions(
        keepalive_seconds=settings.keepalive_seconds,
        ping_timeout_seconds=settings.ping_timeout_seconds,
        connections_max=room.connections,
        # As long as a message may take.
        status_seconds=settings.stall_seconds,
    )
    readiness = Readiness(lambda: engine_states(fleet))
    return App(
        settings=settings,
        fleet=fleet,
        journal=journal,
        runs=runs,
        batches=batches,
        transport=make_transport(settings.transport, methods, options),
        health=health,
        clock=clock,
        readiness=readiness,
        admin=_admin(settings.admin_address, readiness, scrape),
    )


def make_transport(name: Transport, methods: Methods, options: ServerOptions) -> Server:
    """Makes the transport of a name, and loads no other one."""
    match name:
        case "http2":
            from tokenwire.transport.http2.server import Http2Server

            return Http2Server(methods, options)
        case "grpc_aio":
            from tokenwire.transport.grpc_aio import GrpcServer

            return GrpcServer(methods, options)
        case _:
            assert_never(name)


def _reflection(settings: Settings) -> list[Endpoint]:
    if not settings.reflection:
        return []
    from tokenwire.transport.reflection import reflection_endpoints

    return reflection_endpoints([service.full_name for service in SERVICES], reflection_pool())


def _admin(address: str, readiness: Readiness, scrape: "Exposition | None") -> "AdminPort | None":
    if not address:
        return None
    # Whoever has no admin port need not load an HTTP server.
    from tokenwire.admin.port import AdminPort

    return AdminPort(*split_listen(address), readiness, scrape)


def make_journal(settings: Settings, clock: Clock) -> Journal:
    """Makes the journal that the settings name. Raises JournalError if a package that it needs is not there."""
    key = base64.b64decode(settings.journal_key.get_secret_value()) or None
    kind, _, rest = settings.journal.partition(":")
    match kind:
        case "memory":
            return MemoryJournal(settings.journal_max_bytes)
        case "file":
            return FileJournal(
                Path(rest),
                settings.journal_max_bytes,
                clock=clock,
                fsync=settings.journal_fsync,
                fsync_seconds=settings.journal_fsync_seconds,
                segment_bytes=settings.journal_segment_bytes,
                outage=settings.journal_outage,
                key=key,
            )
        case _:
            return _shared_journal(settings, clock, key)


def _shared_journal(settings: Settings, clock: Clock, key: bytes | None) -> Journal:
    try:
        # The package of its client is an extra.
        from tokenwire.journal.redis.journal import RedisJournal
    except ImportError as error:
        raise JournalError("a journal in Redis needs the package redis: pip install tokenwire[redis]") from error
    return RedisJournal(
        settings.journal,
        settings.journal_max_bytes,
        clock=clock,
        rng=random.SystemRandom(),
        gateway_id=secrets.token_hex(8),
        lease_seconds=settings.lease_seconds,
        outage=settings.journal_outage,
        sealer=Sealer(key) if key else None,
        prefix=settings.journal_prefix,
        username=settings.redis_username,
        password=settings.redis_password.get_secret_value(),
    )


def make_engines(settings: Settings, clock: Clock, on_progress: OnProgress | None = None) -> list[Engine]:
    """Makes the engines that the settings name, in their order."""
    engines = ((one.alias, _engine(one, settings, clock, on_progress)) for one in settings.engines)
    return [AliasedEngine(engine, alias) if alias else engine for alias, engine in engines]


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
