"""How busy vLLM says it is."""

from tokenwire.engines.status import Load

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"


def load(exposition: str) -> Load | None:
    """Reads Prometheus' text format; sums over the engines of a server. None if it does not tell."""
    sums: dict[str, float] = {}
    for line in exposition.splitlines():
        if not line.startswith((_RUNNING, _WAITING)):
            continue
        name = line.partition("{")[0].partition(" ")[0]
        try:
            sums[name] = sums.get(name, 0.0) + float(line.rpartition("}")[2].split()[0 if "}" in line else 1])
        except (ValueError, IndexError):
            continue
    try:
        return Load(running=int(sums[_RUNNING]), waiting=int(sums[_WAITING]))
    except (KeyError, ValueError, OverflowError):
        return None
