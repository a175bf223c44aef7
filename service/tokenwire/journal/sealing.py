"""What a journal keeps, encrypted: prompts and answers outlive the process that was trusted with them."""

import hashlib
import importlib
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from tokenwire.journal.journal import JournalError
from tokenwire.journal.record import DamagedError

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
# What a sealed piece is longer than what it holds.
SEAL_BYTES = _NONCE_BYTES + _TAG_BYTES


class Sealer:
    """Encrypts and authenticates with AES-256-GCM.

    Each `bound_to` has a key of its own, which is derived from the one given: nonces are random, and one key must not
    be used for more than some billions of them.

    Args:
        key: 32 secret bytes.
        random: makes so many random bytes.

    Raises JournalError if the key has another length, or the package that encrypts is not there.
    """

    def __init__(self, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        if len(key) != KEY_BYTES:
            raise JournalError(f"the journal's key must be {KEY_BYTES} bytes long, not {len(key)}")
        try:
            aead = importlib.import_module("cryptography.hazmat.primitives.ciphers.aead")
            self._refusals: tuple[type[Exception], ...] = (
                importlib.import_module("cryptography.exceptions").InvalidTag,
                ValueError,
            )
        except ImportError as error:
            raise JournalError("an encrypted journal needs the package cryptography") from error
        # The operator may use the same key elsewhere: what is derived here fits nothing else.
        secret = hashlib.blake2b(key, person=b"tokenwire journl").digest()
        self._random = random
        self._cipher: Callable[[bytes], _Cipher] = lru_cache(maxsize=1024)(
            lambda bound_to: aead.AESGCM(hashlib.blake2b(bound_to, key=secret, digest_size=KEY_BYTES).digest())
        )

    def seal(self, data: bytes | memoryview, bound_to: bytes) -> bytes:
        """Returns the encrypted bytes; they can be opened only as what they are bound to, such as a run's id."""
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher(bound_to).encrypt(nonce, data, bound_to)

    def open(self, data: bytes | memoryview, bound_to: bytes) -> bytes:
        """Returns what was sealed. Raises DamagedError if it was changed, or sealed by another key or as another's."""
        try:
            return self._cipher(bound_to).decrypt(bytes(data[:_NONCE_BYTES]), data[_NONCE_BYTES:], bound_to)
        except self._refusals:
            raise DamagedError("what was sealed cannot be opened") from None


class _Cipher(Protocol):
    def encrypt(self, nonce: bytes, data: bytes | memoryview, associated_data: bytes, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes | memoryview, associated_data: bytes, /) -> bytes: ...
