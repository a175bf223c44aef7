"""Runs a gateway on grpc.aio with further server options: `python -m bench.gateways.with_options OPTIONS MODULE ...`.

OPTIONS is a JSON object of channel options by name. MODULE is run as a program, with what follows as its arguments.
"""

import json
import runpy
import sys
from typing import Any

from grpc import aio


def main() -> None:
    """Runs the gateway."""
    options, module, *arguments = sys.argv[1:]
    further: dict[str, Any] = json.loads(options)
    make: Any = aio.server

    def server(**named: Any) -> Any:
        return make(**named | {"options": list((dict(named.get("options") or ()) | further).items())})

    aio.server = server  # type: ignore[assignment]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
