"""The variables of other projects that users have set already."""

import re
from collections.abc import Mapping

from tokenwire.settings.address import ollama_url
from tokenwire.settings.problems import Given

OTEL_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

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
    given = {}
    if endpoint := environ.get(OTEL_ENDPOINT):
        given["otel_endpoint"] = Given(endpoint, OTEL_ENDPOINT)
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


def _value(variable: str, text: str) -> object:
    if variable == "OLLAMA_HOST":
        return ollama_url(text)
    if variable == "SGLANG_TIMEOUT":
        match = _DURATION.fullmatch(text.strip())
        if not match:
            raise ValueError("not a duration")
        return float(match[1]) * _UNIT_SECONDS[match[2]]
    return text
