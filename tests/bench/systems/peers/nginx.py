"""nginx, which passes bytes on and knows nothing of tokens: a floor for HTTP."""

import re
import resource
from pathlib import Path

from bench.system import Dialect, Launch, Stage, Wire
from bench.systems.peers.chat import CHAT_PATH, chat_request
from bench.systems.peers.nginx_program import NginxProgram

_CONFIG = "nginx.conf"
# Two for a stream, and room.
_CONNECTIONS = 16_384
# What a build has unless it says otherwise, each with a folder that is made at start.
_WRITING = ("proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """nginx with buffering off, connections to the engine kept alive, and one worker process."""

    name = "nginx"
    wire = Wire.SSE
    path = CHAT_PATH
    dialect = Dialect.CHAT

    def __init__(self, program: NginxProgram | None = None) -> None:
        self._program = program or NginxProgram()

    def absent(self) -> str:
        """Returns why it cannot be measured here; empty if it can. Fetches it first."""
        return self._program.absent()

    def version(self) -> str:
        """Returns the version of the program that was found. Raises LookupError if none was."""
        found = re.search(r"nginx/(\S+)", self._program.build)
        if found is None:
            raise LookupError("nginx was not found")
        return found[1]

    def launch(self, stage: Stage) -> Launch:
        """Writes its configuration and returns how it is started."""
        config = stage.folder / _CONFIG
        config.write_text(_config(stage, self._program.build))
        return Launch(
            command=[self._program.path, "-p", str(stage.folder), "-c", str(config), "-e", "stderr"],
            # The engine's answer, through it.
            ready_path="/health",
        )

    def request(self, tokens: int) -> bytes:
        """Returns the body of a request for so many tokens."""
        return chat_request(tokens)


def _config(stage: Stage, build: str) -> str:
    folders = {"client_body": stage.folder / "client_body"}
    folders |= {name: stage.folder / name for name in _WRITING if f"--without-http_{name}_module" not in build}
    bound = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    connections = _CONNECTIONS if bound == resource.RLIM_INFINITY else min(_CONNECTIONS, bound)
    return _TEMPLATE.format(
        folder=stage.folder,
        processes=stage.processes,
        connections=connections,
        port=stage.port,
        engine_port=stage.engine_port,
        temporary="\n".join(_temporary(name, path) for name, path in folders.items()),
    )


def _temporary(name: str, path: Path) -> str:
    return f'    {name}_temp_path "{path}";'


# A request is passed on at once and an answer as it comes; nothing is logged but errors, nothing tried twice.
_TEMPLATE = """\
daemon off;
worker_processes {processes};
worker_rlimit_nofile {connections};
pid "{folder}/nginx.pid";
error_log stderr error;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
{temporary}
    upstream engine {{
        server 127.0.0.1:{engine_port} max_fails=0;
        keepalive 4096;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_next_upstream off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""
