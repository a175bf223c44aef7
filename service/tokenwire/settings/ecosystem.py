"""The variables of other projects that users have set already."""

import re
from collections.abc import Mapping

from tokenwire.settings.address import ollama_url
from tokenwire.settings.problems import Given

# The variable of each setting whose text is taken as it is.
_OTEL = {
    "otel_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "otel_protocol": "OTEL_EXPORTER_OTLP_PROTOCOL",
    "otel_traces_endpoint": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "otel_traces_protocol": "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "otel_metrics_endpoint": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "otel_metrics_protocol": "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "otel_traces_exporter": "OTEL_TRACES_EXPORTER",
    "otel_metrics_exporter": "OTEL_METRICS_EXPORTER",
}
_DISABLED = "OTEL_SDK_DISABLED"
_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
_PROMETHEUS_HOST = "OTEL_EXPORTER_PROMETHEUS_HOST"
_PROMETHEUS_PORT = "OTEL_EXPORTER_PROMETHEUS_PORT"
# Content is written into spans; there are no events that could hold it.
_CAPTURED = {"true": True, "span_only": True, "span_and_event": True, "false": False, "no_content": False}

# Engine kind -> the variable of each field; the first one makes the engine, the others are its own business without it.
_ENGINES = {
    "vllm": {"url": "VLLM_BASE_URL", "model": "VLLM_MODEL", "api_key": "VLLM_API_KEY"},
    "sglang": {"url": "SGLANG_BASE_URL", "timeout_seconds": "SGLANG_TIMEOUT", "api_key": "SGLANG_API_KEY"},
    "ollama": {"url": "OLLAMA_HOST"},
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smh]?)")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def read_ecosystem(environ: Mapping[str, str]) -> dict[str, Given]:
    """Returns the settings that the ecosystem's variables give; an empty variable counts as unset."""
    given = _telemetry(environ)
    engines: list[dict[str, object]] = []
    sources: list[str] = []
    parts: dict[tuple[int | str, ...], str] = {}
    problems: list[str] = []
    for name, variables in _ENGINES.items():
        if not environ.get(variables["url"]):
            continue
        engine: dict[str, object] = {"name": name, "kind": name}
        used = [(key, variable) for key, variable in variables.items() if environ.get(variable)]
        for key, variable in used:
            parts[len(engines), key] = variable
            try:
                engine[key] = _value(variable, environ[variable])
            except ValueError:
                problems.append(
                    f'engines[{len(engines)}].{key}: wants a duration such as "120", "120s" or "2m" (from {variable})'
                )
        engines.append(engine)
        sources.append(", ".join(variable for _, variable in used))
    if engines:
        given["engines"] = Given(engines, ", ".join(sources), tuple(sources), parts, tuple(problems))
    return given


def _telemetry(environ: Mapping[str, str]) -> dict[str, Given]:
    given = {name: Given(environ[variable], variable) for name, variable in _OTEL.items() if environ.get(variable)}
    if disabled := environ.get(_DISABLED):
        # Whatever is not true is false, says the specification.
        given["otel_disabled"] = Given(disabled.strip().lower() == "true", _DISABLED)
    if content := environ.get(_CONTENT):
        captured = _CAPTURED.get(content.strip().lower())
        problem = f"capture_content: wants NO_CONTENT, SPAN_ONLY or SPAN_AND_EVENT (from {_CONTENT})"
        given["capture_content"] = Given(bool(captured), _CONTENT, problems=(problem,) if captured is None else ())
    # The variable is a list of all conventions that somebody has opted in to.
    if "gen_ai_latest_experimental" in [one.strip() for one in environ.get(_OPT_IN, "").split(",")]:
        given["semconv_opt_in"] = Given(True, _OPT_IN)
    host, port = environ.get(_PROMETHEUS_HOST), environ.get(_PROMETHEUS_PORT)
    if (host or port) and "prometheus" in environ.get("OTEL_METRICS_EXPORTER", "").lower():
        source = ", ".join(name for name in (_PROMETHEUS_HOST, _PROMETHEUS_PORT) if environ.get(name))
        host = host or "127.0.0.1"
        given["admin_listen"] = Given(f"{f'[{host}]' if ':' in host else host}:{port or 9464}", source)
    return given


def _value(variable: str, text: str) -> object:
    if variable == "OLLAMA_HOST":
        return ollama_url(text)
    if variable == "SGLANG_TIMEOUT":
        match = _DURATION.fullmatch(text.strip())
        if not match:
            raise ValueError("not a duration")
        return float(match[1]) * _UNIT_SECONDS[match[2]]
    return text
