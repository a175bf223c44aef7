"""What is sealed can be read with the key, as what it is bound to, and unchanged; in no other way."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.journal.journal import JournalError
from tokenwire.journal.record import DamagedError
from tokenwire.journal.sealing import SEAL_BYTES, Sealer

KEY = bytes(range(32))


@pytest.fixture(autouse=True, scope="module")
def the_package_that_encrypts() -> None:
    pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_was_sealed_is_opened_by_another_process_with_the_same_key(data: bytes, bound_to: bytes) -> None:
    sealed = Sealer(KEY).seal(data, bound_to)
    assert Sealer(KEY).open(sealed, bound_to) == data
    assert Sealer(KEY).open(memoryview(sealed), bound_to) == data
    assert len(sealed) == len(data) + SEAL_BYTES


@given(st.data())
def test_any_changed_bit_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(Sealer(KEY).seal(b"some text", b"run"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedError):
        Sealer(KEY).open(bytes(sealed), b"run")


@pytest.mark.parametrize("kept", [0, 1, 11, 12, 13, 27, 28, 36])
def test_what_was_cut_is_noticed(kept: int) -> None:
    sealed = Sealer(KEY).seal(b"some text", b"run")
    with pytest.raises(DamagedError):
        Sealer(KEY).open(sealed[:kept], b"run")


def test_another_key_and_another_run_open_nothing() -> None:
    sealed = Sealer(KEY).seal(b"some text", b"run")
    with pytest.raises(DamagedError):
        Sealer(KEY).open(sealed, b"other")
    with pytest.raises(DamagedError):
        Sealer(KEY[::-1]).open(sealed, b"run")


def test_the_same_text_never_looks_the_same() -> None:
    sealer = Sealer(KEY)
    assert len({sealer.seal(b"some text", b"run") for _ in range(100)}) == 100


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(JournalError, match="32 bytes"):
        Sealer(bytes(length))


def test_without_the_package_the_operator_is_told_which_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(JournalError, match="the package cryptography"):
        Sealer(KEY)
