"""Other people's gateways, each from its registry in an environment of its own: `PEERS`."""

from collections.abc import Sequence

from bench.system import System
from bench.systems.peers.litellm import LiteLlm
from bench.systems.peers.nginx import Nginx
from bench.systems.peers.sglang_router import SglangRouter
from bench.systems.peers.smg import Smg
from bench.systems.peers.vllm_router import VllmRouter

__all__ = ["PEERS"]

PEERS: Sequence[System] = (Smg(), SglangRouter(), VllmRouter(), LiteLlm(), Nginx())
