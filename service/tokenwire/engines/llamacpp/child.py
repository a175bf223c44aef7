"""The child process: llama.cpp's server, bound to the life of its parent.

Run as `python -m tokenwire.engines.llamacpp.child`, or by path; it imports no other module of the package. Prints one
JSON line on standard output, `ready` or `error`, and nothing else ever: all that llama.cpp says goes to standard error.
"""

import argparse
import json
import os
import resource
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

EXIT_MODEL = 3
EXIT_LIBRARY = 4
EXIT_SERVER = 5

# llama.cpp takes one blocking thread for each stream that lives; the rest is for short requests beside them.
_SPARE_HTTP_THREADS = 16
_PROMPT_CACHE_MIB = 256
_BATCH_TOKENS = 512
# What the child may grow by once it is ready. A GBNF grammar of one line, such as root ::= "a"{5,2}, makes llama.cpp
# take all memory there is; with a limit it refuses the grammar.
_GROWTH_BYTES = 1 << 30
# Errors alone: llama.cpp warns of every prompt that is wholly cached, and above warnings it logs the requests.
_VERBOSITY = 1
# The log's. A write beyond fails and is lost.
_LOG_BYTES = 16 << 20


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Serves one model on a free port of the loopback interface until the parent's end of standard input closes."""
    options = _options(arguments)
    announce = _redirect()
    _limit(resource.RLIMIT_FSIZE, _LOG_BYTES)
    for number in (signal.SIGTERM, signal.SIGINT):
        # The kernel's default ends the process at once, even while C++ loads the model. An orderly exit would run the
        # destructor of the C++ server, which waits for the streams that still live.
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_follow_parent, name="lifeline", daemon=True).start()
    # Other users of this machine can reach the port.
    key = secrets.token_urlsafe(24)
    server = _serve(options, announce, key)
    _limit_growth()
    _say(
        announce,
        {
            "event": "ready",
            "url": server.listening_address,
            "key": key,
            "slots": options.slots,
            "ctx_per_slot": options.context_per_slot,
            "model": options.alias,
        },
    )
    while True:
        signal.pause()


def _serve(options: argparse.Namespace, announce: int, key: str) -> Any:
    # Of a file that it cannot read, llama.cpp says no more than that it failed: look first.
    try:
        with Path(options.model).open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        _fail(announce, EXIT_MODEL, f"the model file cannot be read: {error.strerror}")
    if magic != b"GGUF":
        _fail(announce, EXIT_MODEL, "the model file is not in GGUF format")
    try:
        import xllamacpp
    except ImportError as error:
        # Slim images lack libgomp.so.1, which the wheel does not bring.
        _fail(announce, EXIT_LIBRARY, f"llama.cpp cannot be loaded: {error}")
    try:
        return xllamacpp.Server(_parameters(xllamacpp.CommonParams(), options, key))
    except RuntimeError as error:
        _fail(announce, EXIT_SERVER, f"llama.cpp did not start: {error}")


def _parameters(params: Any, options: argparse.Namespace, key: str) -> Any:
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_parallel = options.slots
    params.n_ctx = options.context_per_slot * options.slots
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    # Tokens of a prompt that are read at once: progress is told in such steps, and other streams wait so long. It is no
    # slower than with llama.cpp's own 2048.
    params.n_batch = _BATCH_TOKENS
    params.n_gpu_layers = 0
    # Would shrink the window to what it takes for free memory.
    params.fit_params = False
    # A full window ends the choice.
    params.ctx_shift = False
    # A chat that ends with the assistant's words gets a new answer, as on other engines.
    params.prefill_assistant = False
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    params.cors_origins = ""
    params.verbosity = _VERBOSITY
    params.n_threads_http = options.slots + _SPARE_HTTP_THREADS
    return params


def _limit_growth() -> None:
    if sys.platform != "linux":
        return
    # Should memory run out all the same, the kernel is to take this process and not its parent.
    Path("/proc/self/oom_score_adj").write_text("1000")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            _limit(resource.RLIMIT_DATA, int(line.split()[1]) * 1024 + _GROWTH_BYTES)


def _limit(what: int, value: int) -> None:
    _, most = resource.getrlimit(what)
    resource.setrlimit(what, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _redirect() -> int:
    """Sends what is written to standard output to standard error, C++ included; returns the real standard output."""
    announce = os.dup(1)
    os.dup2(2, 1)
    return announce


def _follow_parent() -> None:
    # The kernel closes the parent's end even when the parent is killed. PR_SET_PDEATHSIG would fire when the thread
    # that started this process ends.
    while os.read(0, 4096):
        pass
    os._exit(0)


def _say(announce: int, line: dict[str, object]) -> None:
    os.write(announce, json.dumps(line).encode() + b"\n")
    os.close(announce)


def _fail(announce: int, code: int, message: str) -> NoReturn:
    _say(announce, {"event": "error", "message": message})
    os._exit(code)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="llama.cpp's server, bound to the life of its parent")
    parser.add_argument("--model", required=True, help="path of a .gguf file")
    parser.add_argument("--alias", required=True, help="the model's name")
    parser.add_argument("--slots", type=int, required=True, help="streams at once")
    parser.add_argument("--context-per-slot", type=int, required=True, help="tokens of prompt and answer")
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
