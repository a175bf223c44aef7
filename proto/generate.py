"""Generates the Python stubs from the .proto files: `make generate-python`.

The validation rules in the .proto files are custom options of `buf.validate`. A stub made the usual way imports
`buf.validate.validate_pb2`, which no package ships, so protoc is given descriptors without that import: the rules stay
in the stubs as options that protobuf keeps but does not read. Clients need grpcio and protobuf alone, and the server's
validator finds the rules in the same stubs. The whole descriptors go into `descriptors.binpb`, for server reflection.
See docs/decisions/0001-one-wheel-one-set-of-stubs.md.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

PROTO = Path(__file__).parent
SERVICE = PROTO.parent / "service"
OUT = SERVICE / "tokenwire" / "v1"
RULES = "buf/validate/validate.proto"


def protoc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)


def without_rules_import(whole: FileDescriptorSet) -> FileDescriptorSet:
    lean = FileDescriptorSet()
    for file in whole.file:
        if file.name == RULES:
            continue
        kept = [name for name in file.dependency if name != RULES]
        del file.dependency[:]
        file.dependency.extend(kept)
        lean.file.append(file)
    return lean


def main() -> None:
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("tokenwire/v1/*.proto"))
    services = [name for name in files if name.endswith("_service.proto")]
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    (OUT / "__init__.py").touch()
    protoc(f"-I{PROTO}", "--include_imports", f"--descriptor_set_out={OUT / 'descriptors.binpb'}", *files)
    with tempfile.TemporaryDirectory() as folder:
        commented = Path(folder) / "whole.binpb"
        lean = Path(folder) / "lean.binpb"
        protoc(f"-I{PROTO}", "--include_imports", "--include_source_info", f"--descriptor_set_out={commented}", *files)
        whole = FileDescriptorSet.FromString(commented.read_bytes())
        lean.write_bytes(without_rules_import(whole).SerializeToString())
        source = f"--descriptor_set_in={lean}"
        protoc(source, f"--python_out={SERVICE}", f"--mypy_out=quiet:{SERVICE}", *files)
        protoc(source, f"--grpc_python_out={SERVICE}", f"--mypy_grpc_out=quiet:{SERVICE}", *services)


if __name__ == "__main__":
    main()
