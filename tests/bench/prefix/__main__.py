"""`python -m bench.prefix --vllm URL --sglang URL --out FILE`: the time to the first token with a cached prefix.

An engine is measured through a tokenwire that is started before it. Only one engine at a time should be running: two
on the same cores measure each other.
"""

import argparse
import asyncio
import importlib.metadata
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from bench.prefix.measuring import Measuring, Plan, VoidError
from bench.prefix.reading import Reuse
from bench.prefix.serving import tokenwire
from bench.prefix.tables import prefix_tables
from tokenwire_client.errors import TokenwireClientError

MODELS = Path(__file__).parents[3] / ".cache" / "models"
# Where an engine tells its version, and how it is called.
ENGINES = {"vllm": ("vLLM", "/version"), "sglang": ("SGLang", "/server_info"), "llamacpp": ("llama.cpp", "")}
EMBEDDED = ("--slots", "4", "--context-per-slot", "4096", "--cache-dir", str(MODELS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what was asked for, writes it and prints the tables. Returns 1 if it gave an engine up, else 0."""
    asked = _parser().parse_args(arguments)
    urls = {kind: getattr(asked, kind) for kind in ("vllm", "sglang") if getattr(asked, kind)}
    kinds = [*urls, *(["llamacpp"] if asked.llamacpp else [])]
    if not kinds:
        sys.exit("bench.prefix: no engine: give --vllm URL, --sglang URL or --llamacpp")
    plan = Plan(repetitions=asked.repetitions, words=tuple(asked.words), turns=asked.turns)
    found = _known(asked.out) if asked.add else {}
    for kind in kinds:
        options = EMBEDDED if kind == "llamacpp" else ("--engine", f"{kind}={urls[kind]}")
        try:
            found[kind] = asyncio.run(_measure(kind, urls.get(kind, ""), options, plan))
        except (RuntimeError, httpx.HTTPError) as error:
            sys.exit(f"bench.prefix: {kind}: {error}")
        # What has been measured is kept, whatever becomes of the next engine.
        if asked.out:
            asked.out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(prefix_tables(list(found.values())))
    return int(any(found[kind].given_up for kind in kinds))


async def _measure(kind: str, url: str, options: Sequence[str], plan: Plan) -> Reuse:
    name, path = ENGINES[kind]
    version = await _version(url, path) if url else importlib.metadata.version("xllamacpp")
    async with tokenwire(options) as (client, model):
        measuring = Measuring(client, rng=random.Random(), tell=lambda text: print(f"{kind}: {text}", file=sys.stderr))
        given_up = ""
        try:
            await measuring.run(plan)
        except (VoidError, TokenwireClientError) as error:
            # What was measured until now counts.
            given_up = str(error) or type(error).__name__
    return Reuse(
        engine=f"{name} {version}", model=model, readings=measuring.readings, void=measuring.void, given_up=given_up
    )


async def _version(url: str, path: str) -> str:
    async with httpx.AsyncClient(base_url=url.removesuffix("/v1"), timeout=10.0) as client:
        answer = (await client.get(path)).raise_for_status()
        return str(answer.json()["version"])


def _known(path: Path | None) -> dict[str, Reuse]:
    if path is None or not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Reuse])


def _parser() -> argparse.ArgumentParser:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m bench.prefix", description=__doc__)
    parser.add_argument("--vllm", metavar="URL", default=os.environ.get("VLLM_BASE_URL", ""), help="a running vLLM")
    parser.add_argument(
        "--sglang", metavar="URL", default=os.environ.get("SGLANG_BASE_URL", ""), help="a running SGLang"
    )
    parser.add_argument("--llamacpp", action="store_true", help="the embedded engine, too")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the JSON file to write")
    parser.add_argument("--add", action="store_true", help="keep the engines that FILE has already")
    parser.add_argument("--repetitions", type=int, default=plan.repetitions, help=f"default: {plan.repetitions}")
    parser.add_argument("--words", type=int, nargs="+", default=plan.words, help="lengths of the prompts")
    parser.add_argument("--turns", type=int, default=plan.turns, help=f"of a conversation; default: {plan.turns}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
