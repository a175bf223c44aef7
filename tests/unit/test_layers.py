"""The direction of imports in the house (design: architecture), and the size of its files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "tokenwire"
# What each part of the package may import beside itself.
ALLOWED = {
    "domain": "",
    "settings": "",
    "settings_table": "settings",
    "engines_table": "engines",
    "telemetry": "dispatch engines journal domain",
    "journal": "domain",
    "delivery": "journal domain",
    "engines": "domain",
    "render": "engines domain",
    "dispatch": "engines journal domain",
    "transport": "domain",
    "interceptors": "transport.call delivery domain telemetry",
    "rpc": "dispatch render journal delivery engines transport.call domain v1 __version__",
    "admin": "dispatch engines",
    "app": "admin dispatch engines interceptors journal render rpc settings telemetry transport domain",
    "server": "admin app engines rpc settings telemetry transport domain",
    "cli": "admin app server settings telemetry engines journal domain v1 __version__",
    "__main__": "cli",
    "__init__": "",
}
# Who may import these from outside the package.
FOREIGN = {
    "grpc": "transport cli",
    "grpc_health": "transport cli",
    "grpc_reflection": "transport",
    "grpc_status": "",
    "google.protobuf": "rpc transport cli",
    "tokenwire_client": "cli",
}
# What each part of the Python client may import beside itself and the standard library.
CLIENT = ROOT / "clients" / "python" / "tokenwire_client"
CLIENT_ALLOWED = {
    "core": "core errors tokenwire.v1 google.protobuf",
    "errors": "core tokenwire.v1",
    "wire": "core grpc",
    "aio": "core wire errors tokenwire.v1 grpc",
    "sync": "core wire errors tokenwire.v1 grpc",
    "__init__": "core errors aio sync",
}
FILES = {path: path.relative_to(PACKAGE).parts for path in PACKAGE.rglob("*.py") if path.parent.name != "v1"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} has a relative import"
            yield from (f"{node.module}.{one.name}" for one in node.names)


def under(module: str, prefixes: str) -> bool:
    return any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes.split())


def test_imports_point_one_way() -> None:
    wrong = []
    for path, parts in FILES.items():
        part = parts[0].removesuffix(".py")
        assert part in ALLOWED, f"{part} is new: say here what it may import"
        for module in imports(path):
            own = module.removeprefix("tokenwire.")
            forbidden = any(under(module, name) and part not in users.split() for name, users in FOREIGN.items())
            if forbidden or (own != module and not under(own, f"{part} {ALLOWED[part]}")):
                wrong.append(f"{'/'.join(parts)} imports {module}")
    assert not wrong


def test_interceptors_and_servicers_can_be_served_by_a_transport_that_has_no_grpc() -> None:
    parts = [parts for parts in FILES.values() if parts[0] in ("interceptors", "rpc")]
    names = [".".join(("tokenwire", *one)).removesuffix(".py").removesuffix(".__init__") for one in parts]
    code = f"import sys, {', '.join(names)}; sys.exit('grpc' in sys.modules)"
    environment = {"PYTHONPATH": str(PACKAGE.parent)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_the_client_needs_the_stubs_and_grpc_alone_and_its_core_not_even_that() -> None:
    wrong = []
    for path in CLIENT.rglob("*.py"):
        parts = path.relative_to(CLIENT).parts
        part = parts[0].removesuffix(".py")
        for module in imports(path):
            own = module.removeprefix("tokenwire_client.")
            if own.partition(".")[0] in sys.stdlib_module_names:
                continue
            if not under(own, f"{part} {CLIENT_ALLOWED[part]}"):
                wrong.append(f"{'/'.join(parts)} imports {module}")
    assert not wrong


def test_one_file_reads_the_environment() -> None:
    readers = set()
    for path, parts in FILES.items():
        tree = ast.parse(path.read_text())
        # What is copied whole into a child's environment, or set for a library, is not read.
        handed_on = {id(value) for node in ast.walk(tree) if isinstance(node, ast.Dict) for value in node.values}
        handed_on |= {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "setdefault"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and id(node) not in handed_on:
                readers.add("/".join(parts))
        readers |= {"/".join(parts) for module in imports(path) if module in ("os.environ", "os.getenv")}
    assert readers <= {"settings/environment.py"}


def test_no_written_file_has_more_than_400_lines() -> None:
    files = [*FILES, *CLIENT.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert not [path.name for path in files if len(path.read_text().splitlines()) > 400]
