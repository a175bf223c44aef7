"""What the standard variables of OpenTelemetry mean here, and what our own settings make of them."""

from pathlib import Path

import pytest

from tokenwire.settings.telemetry import PROMETHEUS_ADDRESS
from unit.settings_loading import ADDRESS, load, problems, written

OTLP = "OTEL_EXPORTER_OTLP_"
GENERAL = {f"{OTLP}ENDPOINT": "http://c:4318/"}


def test_by_default_nothing_leaves_and_nothing_listens() -> None:
    settings = load()
    assert (settings.otlp("traces"), settings.otlp("metrics"), settings.prometheus) == (None, None, False)
    assert (settings.admin_address, settings.capture_content, settings.semconv_opt_in) == ("", False, False)


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        (GENERAL, ("http/protobuf", "http://c:4318/v1/traces"), ("http/protobuf", "http://c:4318/v1/metrics")),
        (GENERAL | {f"{OTLP}PROTOCOL": "grpc"}, ("grpc", "http://c:4318"), ("grpc", "http://c:4318")),
        # What is given for one signal is taken as it is, and leaves the other one out.
        ({f"{OTLP}TRACES_ENDPOINT": "https://t/x"}, ("http/protobuf", "https://t/x"), None),
        ({f"{OTLP}METRICS_ENDPOINT": "https://m/x"}, None, ("http/protobuf", "https://m/x")),
        (
            GENERAL | {f"{OTLP}METRICS_ENDPOINT": "http://m:4317", f"{OTLP}METRICS_PROTOCOL": "grpc"},
            ("http/protobuf", "http://c:4318/v1/traces"),
            ("grpc", "http://m:4317"),
        ),
        (
            GENERAL | {f"{OTLP}PROTOCOL": "grpc", f"{OTLP}TRACES_PROTOCOL": "http/protobuf"},
            ("http/protobuf", "http://c:4318/v1/traces"),
            ("grpc", "http://c:4318"),
        ),
        # Without an endpoint: where the SDK looks on this machine.
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("http/protobuf", ""), None),
        ({"OTEL_METRICS_EXPORTER": "otlp", f"{OTLP}PROTOCOL": "grpc"}, None, ("grpc", "")),
        (GENERAL | {"OTEL_TRACES_EXPORTER": "none"}, None, ("http/protobuf", "http://c:4318/v1/metrics")),
        (GENERAL | {"OTEL_METRICS_EXPORTER": "None"}, ("http/protobuf", "http://c:4318/v1/traces"), None),
        (GENERAL | {"OTEL_SDK_DISABLED": "True"}, None, None),
        (
            GENERAL | {"OTEL_SDK_DISABLED": "1", "OTEL_METRICS_EXPORTER": "none"},
            ("http/protobuf", "http://c:4318/v1/traces"),
            None,
        ),
        ({f"{OTLP}ENDPOINT": "", f"{OTLP}PROTOCOL": "", "OTEL_TRACES_EXPORTER": ""}, None, None),
        # Nobody needs to know of those that the SDK reads.
        ({"OTEL_SERVICE_NAME": "x", "OTEL_BSP_SCHEDULE_DELAY": "x", f"{OTLP}HEADERS": "a=b"}, None, None),
    ],
)
def test_the_standard_variables_say_where_each_signal_goes(
    environ: dict[str, str], traces: tuple[str, str] | None, metrics: tuple[str, str] | None
) -> None:
    settings = load({}, environ)
    assert (settings.otlp("traces"), settings.otlp("metrics")) == (traces, metrics)


@pytest.mark.parametrize(
    ("environ", "scraped", "address"),
    [
        ({"TOKENWIRE_ADMIN_LISTEN": "[::1]:0"}, True, "[::1]:0"),
        ({"TOKENWIRE_ADMIN_LISTEN": "0.0.0.0:9090", "OTEL_METRICS_EXPORTER": "none"}, False, "0.0.0.0:9090"),
        ({"TOKENWIRE_ADMIN_LISTEN": "127.0.0.1:1", "OTEL_METRICS_EXPORTER": "otlp"}, False, "127.0.0.1:1"),
        ({"TOKENWIRE_ADMIN_LISTEN": "127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False, "127.0.0.1:1"),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, True, PROMETHEUS_ADDRESS),
        ({"OTEL_METRICS_EXPORTER": "Prometheus, otlp"}, True, PROMETHEUS_ADDRESS),
        (
            {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST": "::"},
            True,
            "[::]:9464",
        ),
        ({"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": "1"}, True, "127.0.0.1:1"),
        # They say where, not that.
        ({"OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0", "OTEL_EXPORTER_PROMETHEUS_PORT": "1"}, False, ""),
    ],
)
def test_who_scrapes_and_where(environ: dict[str, str], scraped: bool, address: str) -> None:
    settings = load({}, environ)
    assert (settings.prometheus, settings.admin_address) == (scraped, address)


def test_our_own_setting_comes_before_the_standard_variable_and_that_before_the_file(tmp_path: Path) -> None:
    folder = written(tmp_path, 'otel_protocol = "grpc"\nadmin_listen = "127.0.0.1:7"\ncapture_content = true\n')
    environ = {f"{OTLP}PROTOCOL": "http/protobuf", "OTEL_METRICS_EXPORTER": "prometheus"}
    settings = load({}, environ, folder)
    assert (settings.otel_protocol, settings.sources["otel_protocol"]) == ("http/protobuf", f"{OTLP}PROTOCOL")
    # The exporter's name alone names no address.
    assert (settings.admin_address, settings.sources["admin_listen"]) == ("127.0.0.1:7", "file tokenwire.toml")
    assert settings.capture_content
    settings = load({"otel_protocol": "grpc"}, environ | {"TOKENWIRE_ADMIN_LISTEN": "127.0.0.1:8"}, folder)
    assert (settings.otel_protocol, settings.admin_address) == ("grpc", "127.0.0.1:8")


@pytest.mark.parametrize(
    ("text", "captured"),
    [
        ("SPAN_ONLY", True),
        ("span_and_event", True),
        ("true", True),
        ("NO_CONTENT", False),
        ("false", False),
        ("", False),
    ],
)
def test_content_is_captured_for_spans_alone(text: str, captured: bool) -> None:
    environ = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": text}
    assert load({}, environ).capture_content is captured


@pytest.mark.parametrize(
    ("text", "newer"),
    [
        ("gen_ai_latest_experimental", True),
        ("http/dup, gen_ai_latest_experimental", True),
        ("http", False),
        ("", False),
    ],
)
def test_the_opt_in_is_one_of_a_list(text: str, newer: bool) -> None:
    assert load({}, {"OTEL_SEMCONV_STABILITY_OPT_IN": text}).semconv_opt_in is newer


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        (f"{OTLP}ENDPOINT", "c:4318", f"otel_endpoint: wants {ADDRESS}"),
        (f"{OTLP}TRACES_ENDPOINT", "http://u:secret@c", f"otel_traces_endpoint: wants {ADDRESS}"),
        (f"{OTLP}PROTOCOL", "http/json", "otel_protocol: wants one of http/protobuf, grpc"),
        (f"{OTLP}METRICS_PROTOCOL", "x", "otel_metrics_protocol: wants one of same, http/protobuf, grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otel_traces_exporter: wants one of auto, otlp, none"),
        (
            "OTEL_METRICS_EXPORTER",
            "none,otlp",
            "otel_metrics_exporter: wants auto, none, otlp, prometheus, or otlp,prometheus",
        ),
        (
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            "EVENT_ONLY",
            "capture_content: wants NO_CONTENT, SPAN_ONLY or SPAN_AND_EVENT",
        ),
        (
            "TOKENWIRE_ADMIN_LISTEN",
            "9090",
            "admin_listen: wants host:port or [::1]:port, with a port of at most 65535",
        ),
    ],
)
def test_what_makes_no_sense_is_told_with_its_variable_and_without_its_value(
    variable: str, value: str, told: str
) -> None:
    assert problems({}, {variable: value}) == [f"{told} (from {variable})"]


def test_a_prometheus_port_that_is_none_is_told() -> None:
    environ = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": "x"}
    [problem] = problems({}, environ)
    assert problem.startswith("admin_listen: wants host:port")
    assert problem.endswith("(from OTEL_EXPORTER_PROMETHEUS_PORT)")
