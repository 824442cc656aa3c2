"""Random words for noise and coins: AES-256-CTR under a key from the operating system.

Guarantees
----------
- A source is keyed by ``os.urandom`` in the process that uses it, and refuses to work in any other process:
  a forked worker would repeat its parent's stream, and two equal noises cancel.
- It cannot be pickled or seeded. The only deterministic source is made by ``unsafe_seeded_words`` and
  exists for tests.
"""

from __future__ import annotations

import hashlib
import os
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from privacy.errors import ArchipelError

WORD_BITS = 64
_WORD_BYTES = 8


class RandomnessReuseError(ArchipelError):
    """Noise, or the stream behind it, was about to be used a second time."""

    code = "randomness_reuse"


class WordSource:
    """A stream of independent uniform 64-bit words; see the module's guarantees."""

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(AES(key), CTR(bytes(16))).encryptor()
        self._process_id = os.getpid()

    @classmethod
    def from_os(cls) -> WordSource:
        """A fresh source, keyed with 256 bits of the operating system's generator."""
        return cls(os.urandom(32))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """The next ``count`` words, read-only, shape (count,).

        Raises:
            RandomnessReuseError: this is not the process that made the source.
        """
        if os.getpid() != self._process_id:
            raise RandomnessReuseError(
                "a random stream crossed into another process, where it would be repeated",
                remedy="make a source in the process that draws",
            )
        return np.frombuffer(self._stream.update(bytes(_WORD_BYTES * count)), dtype="<u8")

    def word(self) -> int:
        """The next word as an integer in [0, 2^64)."""
        return int(self.words(1)[0])

    def __reduce__(self) -> NoReturn:
        raise RandomnessReuseError(
            "a random stream cannot be copied", remedy="make a source in the process that draws"
        )


def unsafe_seeded_words(seed: int) -> WordSource:
    """A reproducible source for tests; noise drawn from it protects nobody."""
    return WordSource(hashlib.sha256(b"unsafe" + seed.to_bytes(16, "big", signed=True)).digest())
