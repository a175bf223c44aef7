"""An encrypted journal is read with its key alone; what a later version wrote is left alone."""

from pathlib import Path

import pytest

from harness.records import record
from harness.run_events import START, contents, write
from tokenwire.domain.cursor import Channel
from tokenwire.journal.file.entries import VERSION
from tokenwire.journal.journal import JournalError
from tokenwire.journal.log import RunLog
from unit.journal.file.kept import NOW, journal_in, segments

KEY = bytes(range(32))
SECRET = "a secret of the prompt"


async def run(folder: Path, run_id: str, key: bytes | None) -> RunLog:
    async with journal_in(folder, key=key) as (journal, _):
        log = await journal.open(record(run_id, prompt=SECRET, created_at=NOW))
        write(log, [START])
        log.append_text(Channel(), "a secret of the answer", 0)
        log.wake()
        await log.changed()
    return log


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def _cipher() -> None:
    pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")


@pytest.mark.asyncio
@pytest.mark.usefixtures("_cipher")
async def test_with_a_key_neither_prompt_nor_answer_is_in_the_files(tmp_path: Path) -> None:
    log = await run(tmp_path, "sealed", KEY)
    assert b"secret" not in b"".join(files(tmp_path).values())
    async with journal_in(tmp_path, key=KEY) as (_, kept):
        assert contents(kept.log("sealed")) == contents(log)
        assert kept.running["sealed"].record.submission.prompt == SECRET


@pytest.mark.asyncio
@pytest.mark.usefixtures("_cipher")
async def test_without_the_key_or_with_another_one_nothing_is_changed(tmp_path: Path) -> None:
    await run(tmp_path, "sealed", KEY)
    before = files(tmp_path)
    for key, said in ((None, "is missing"), (KEY[::-1], "is not the key")):
        with pytest.raises(JournalError, match=f"TOKENWIRE_JOURNAL_KEY {said}"):
            async with journal_in(tmp_path, key=key):
                raise AssertionError
        assert files(tmp_path) == before
    async with journal_in(tmp_path, key=KEY) as (_, kept):
        assert list(kept.running) == ["sealed"]


@pytest.mark.asyncio
@pytest.mark.usefixtures("_cipher")
async def test_a_journal_that_gets_a_key_keeps_what_it_had(tmp_path: Path) -> None:
    plain = await run(tmp_path, "plain", None)
    sealed = await run(tmp_path, "sealed", KEY)
    assert b"secret" not in segments(tmp_path)[-1].read_bytes()
    async with journal_in(tmp_path, key=KEY) as (_, kept):
        assert contents(kept.log("plain")) == contents(plain)
        assert contents(kept.log("sealed")) == contents(sealed)


@pytest.mark.asyncio
async def test_what_a_later_version_wrote_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(tmp_path, "a", None)
    monkeypatch.setattr("tokenwire.journal.file.entries.VERSION", VERSION + 1)
    await run(tmp_path, "b", None)
    monkeypatch.undo()
    # Torn as well: not even that is touched.
    last = segments(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-1])
    before = files(tmp_path)
    with pytest.raises(JournalError, match="a later version"):
        async with journal_in(tmp_path):
            raise AssertionError
    assert files(tmp_path) == before
