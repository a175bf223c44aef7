"""The settings of what is seen from outside: logs, traces, metrics, and the port of probes."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tokenwire.settings.kinds import (
    LogFormat,
    LogLevel,
    MetricsExporter,
    OptionalListenAddress,
    OtlpProtocol,
    Seconds,
    SignalProtocol,
    TracesExporter,
    Url,
)
from tokenwire.settings.service import ServiceSettings
from tokenwire.settings.wording import Wording

Signal = Literal["traces", "metrics"]

# Where Prometheus looks if its exporter is asked for and nobody says where.
PROMETHEUS_ADDRESS = "127.0.0.1:9464"


class OtlpTarget(NamedTuple):
    """Where a signal goes: the protocol, and the whole address; empty: the protocol's usual one on this machine."""

    protocol: Literal["http/protobuf", "grpc"]
    endpoint: str


class TelemetrySettings(ServiceSettings, frozen=True):
    """What a service tells of itself, and to whom. All of it is off by default, but for the log."""

    log_level: Annotated[LogLevel, Field(description="The least important messages that are logged.")] = "info"
    log_format: Annotated[
        LogFormat,
        Field(description="How logs are written; auto means console on a terminal and json elsewhere."),
    ] = "auto"

    admin_listen: Annotated[
        OptionalListenAddress,
        Field(
            description="The address to serve /healthz, /readyz and /metrics on, over HTTP, to anybody who reaches it: "
            "host:port or [::1]:port; port 0 takes a free one."
        ),
        Wording(default="not served"),
    ] = ""

    otel_endpoint: Annotated[
        Url,
        Field(
            description="The OTLP endpoint for traces and metrics, without the signal's path; "
            "OTEL_EXPORTER_OTLP_ENDPOINT is read too."
        ),
        Wording(default="no export"),
    ] = ""
    otel_protocol: Annotated[
        OtlpProtocol, Field(description="How to speak to that endpoint; OTEL_EXPORTER_OTLP_PROTOCOL is read too.")
    ] = "http/protobuf"
    otel_traces_endpoint: Annotated[
        Url,
        Field(
            description="The OTLP endpoint for traces, taken as it is; OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is read too."
        ),
        Wording(default="that of otel_endpoint"),
    ] = ""
    otel_traces_protocol: Annotated[
        SignalProtocol,
        Field(
            description="How to speak to the endpoint for traces, same meaning as otel_protocol says; "
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is read too."
        ),
    ] = "same"
    otel_metrics_endpoint: Annotated[
        Url,
        Field(
            description="The OTLP endpoint for metrics, taken as it is; "
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is read too."
        ),
        Wording(default="that of otel_endpoint"),
    ] = ""
    otel_metrics_protocol: Annotated[
        SignalProtocol,
        Field(
            description="How to speak to the endpoint for metrics, same meaning as otel_protocol says; "
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL is read too."
        ),
    ] = "same"
    otel_traces_exporter: Annotated[
        TracesExporter,
        Field(
            description="Whether traces are sent, auto meaning that they are if there is an endpoint; "
            "OTEL_TRACES_EXPORTER is read too."
        ),
    ] = "auto"
    otel_metrics_exporter: Annotated[
        MetricsExporter,
        Field(
            description="How metrics leave: otlp, prometheus, both with a comma between them, none, or auto, meaning "
            "otlp if there is an endpoint and prometheus if there is an admin_listen; "
            "OTEL_METRICS_EXPORTER is read too."
        ),
    ] = "auto"
    otel_disabled: Annotated[
        bool,
        Field(description="Makes no traces and no metrics, whatever else is set; OTEL_SDK_DISABLED is read too."),
    ] = False
    otel_flush_seconds: Annotated[
        Seconds,
        Field(description="How long the last traces and metrics may take when the server stops, in seconds."),
    ] = 5
    capture_content: Annotated[
        bool,
        Field(
            description="Writes prompts and answers into spans; "
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is read too."
        ),
    ] = False
    semconv_opt_in: Annotated[
        bool,
        Field(
            description="Uses the newer names of the conventions for generative AI; gen_ai_latest_experimental in "
            "OTEL_SEMCONV_STABILITY_OPT_IN is read too."
        ),
    ] = False

    def otlp(self, signal: Signal) -> OtlpTarget | None:
        """Returns where a signal goes by OTLP; None if it does not."""
        exporter, endpoint, protocol = {
            "traces": (self.otel_traces_exporter, self.otel_traces_endpoint, self.otel_traces_protocol),
            "metrics": (self.otel_metrics_exporter, self.otel_metrics_endpoint, self.otel_metrics_protocol),
        }[signal]
        known = endpoint or self.otel_endpoint
        if self.otel_disabled or not ("otlp" in exporter or (exporter == "auto" and known)):
            return None
        spoken = self.otel_protocol if protocol == "same" else protocol
        if spoken == "http/protobuf" and known and not endpoint:
            known = f"{known}/v1/{signal}"
        return OtlpTarget(spoken, known)

    @property
    def prometheus(self) -> bool:
        """Whether metrics can be scraped."""
        exporter = self.otel_metrics_exporter
        wanted = "prometheus" in exporter or (exporter == "auto" and bool(self.admin_listen))
        return wanted and not self.otel_disabled

    @property
    def admin_address(self) -> str:
        """Where probes and Prometheus are answered; empty: nowhere."""
        return self.admin_listen or (PROMETHEUS_ADDRESS if self.prometheus else "")
