"""LiteLLM's proxy (Python)."""

import json

from bench.system import Dialect, Launch, Stage, Wire
from bench.systems.peers.chat import CHAT_PATH, MODEL, chat_request
from bench.systems.peers.environment import APART, PeerEnvironment

_CONFIG = "litellm.yaml"
_VARIABLES = {
    # As its production guide has them; the log level also silences the line per request.
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    # What it would fetch at start or on use: prices, headers, presets, news, tokenizers.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "HF_HUB_OFFLINE": "1",
    # Its bounds on connections to one engine (500) and to all (1000) are below the streams of this benchmark.
    "AIOHTTP_CONNECTOR_LIMIT": "32768",
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "32768",
    # No peer checks callers here, and without this it would not start. It listens on loopback alone.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


class LiteLlm:
    """LiteLLM's proxy, without a database, in front of a vLLM server."""

    name = "litellm"
    wire = Wire.SSE
    path = CHAT_PATH
    dialect = Dialect.CHAT

    def __init__(self, environment: PeerEnvironment | None = None) -> None:
        self._environment = environment or PeerEnvironment("litellm")

    def absent(self) -> str:
        """Returns why it cannot be measured here; empty if it can. Installs it first."""
        return self._environment.absent()

    def version(self) -> str:
        """Returns the version that is installed."""
        return self._environment.version("litellm")

    def launch(self, stage: Stage) -> Launch:
        """Writes its configuration and returns how it is started."""
        config = stage.folder / _CONFIG
        # Every JSON document is a YAML document.
        config.write_text(json.dumps(_config(stage.engine_port), indent=1))
        command = [self._environment.program("litellm"), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(stage.port), "--num_workers", str(stage.processes)]
        return Launch(command=command, environment=APART | _VARIABLES, ready_path="/health/readiness")

    def request(self, tokens: int) -> bytes:
        """Returns the body of a request for so many tokens."""
        return chat_request(tokens)


def _config(engine_port: int) -> dict[str, object]:
    engine = {
        "model": f"hosted_vllm/{MODEL}",
        "api_base": f"http://127.0.0.1:{engine_port}/v1",
        "api_key": "none",
    }
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": engine}],
        # No second try, which would hide a failure, and no pause for the only engine after one.
        "litellm_settings": {
            "num_retries": 0,
            "request_timeout": 600,
            "set_verbose": False,
            # For a Llama it would fetch a tokenizer, and stand still meanwhile.
            "disable_hf_tokenizer_download": True,
        },
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
