"""What crosses the wire: coefficients alone, 36 bits each, so that every frame has one exact length.

SEAL writes 36-bit coefficients as 64-bit words and compresses them, so that the length depends on the
content. Here two coefficients are nine bytes, and all the rest of what SEAL reads (parameters, scale, sizes)
is written by the receiver from constants: a peer's bytes can neither choose nor name a parameter.

=============  =====================================================  ========
frame          content                                                bytes
=============  =====================================================  ========
label          8,192 coefficients, 64 bytes of seed (2nd polynomial)    36,928
sum            16,384 coefficients                                      73,728
public key     24,576 coefficients, three primes                       110,592
=============  =====================================================  ========
"""

from __future__ import annotations

import struct
from enum import Enum

import numpy as np
import numpy.typing as npt

from privacy.encryption.crossmoments.parameters import (
    DATA_PARAMETERS_ID,
    DATA_PRIMES,
    DEGREE,
    KEY_PARAMETERS_ID,
    KEY_PRIMES,
    PRODUCT_SCALE,
    SCALE,
)
from privacy.encryption.frames import FrameError, seal_header

Words = npt.NDArray[np.uint64]

SEED_BYTES = 64
_BLAKE2XB = 1
_SEED_HEADER = seal_header(1 + SEED_BYTES) + bytes([_BLAKE2XB])
_PAIR = np.dtype([("low", "<u8"), ("high", "u1")])
_MASK = np.uint64((1 << 36) - 1)
_SHIFT, _REST = np.uint64(36), np.uint64(28)


class MomentsFrame(Enum):
    """The shapes; the value is (parameters id, primes, polynomials written, seeded, scale, NTT form).

    ``POLYNOMIALS`` is a sum before the number-theoretic transform. It never crosses.
    """

    LABEL = (DATA_PARAMETERS_ID, DATA_PRIMES, 1, True, float(SCALE), True)
    SUM = (DATA_PARAMETERS_ID, DATA_PRIMES, 2, False, float(PRODUCT_SCALE), True)
    PUBLIC_KEY = (KEY_PARAMETERS_ID, KEY_PRIMES, 2, False, 1.0, True)
    POLYNOMIALS = (DATA_PARAMETERS_ID, DATA_PRIMES, 2, False, float(PRODUCT_SCALE), False)

    def __init__(
        self,
        parameters_id: bytes,
        primes: tuple[int, ...],
        polynomials: int,
        is_seeded: bool,
        scale: float,
        is_ntt: bool,
    ) -> None:
        self.primes = primes
        self.num_polynomials = polynomials
        self.is_seeded = is_seeded
        self.num_coefficients = polynomials * len(primes) * DEGREE
        self.num_bytes = self.num_coefficients // 2 * _PAIR.itemsize + SEED_BYTES * is_seeded
        array = struct.pack("<Q", self.num_coefficients)
        array = seal_header(len(array) + 8 * self.num_coefficients) + array
        metadata = parameters_id + struct.pack("<?QQQdQ", is_ntt, 2, DEGREE, len(primes), scale, 1)
        self.content_prefix = metadata + array
        trailer = len(_SEED_HEADER) + SEED_BYTES if is_seeded else 0
        self.content_bytes = len(self.content_prefix) + 8 * self.num_coefficients + trailer


LABEL_FRAME_BYTES = MomentsFrame.LABEL.num_bytes
SUM_FRAME_BYTES = MomentsFrame.SUM.num_bytes
PUBLIC_KEY_BYTES = MomentsFrame.PUBLIC_KEY.num_bytes


def check_frame(frame: bytes, kind: MomentsFrame, *, where: str | None = None) -> Words:
    """Return the coefficients of a frame that may be given to native code.

    Guarantees: length exact; every coefficient below its prime; no polynomial zero under any prime (a zero
    second polynomial makes a ciphertext *transparent*, a zero public key makes all encryptions so).

    Args:
        frame: bytes from anywhere.
        kind: what is expected here.
        where: whose frame it is, for the error.

    Returns:
        Shape (polynomials, primes, 4096), uint64.

    Raises:
        FrameError: anything else.
    """
    if len(frame) != kind.num_bytes:
        raise FrameError(
            f"a frame of {len(frame)} bytes where {kind.num_bytes} are due",
            where=where,
            remedy="check that all parties run the same version",
        )
    pairs = np.frombuffer(frame, dtype=_PAIR, count=kind.num_coefficients // 2)
    words = np.empty((pairs.size, 2), dtype=np.uint64)
    words[:, 0] = pairs["low"] & _MASK
    words[:, 1] = pairs["low"] >> _SHIFT | pairs["high"].astype(np.uint64) << _REST
    polynomials = words.reshape(kind.num_polynomials, len(kind.primes), DEGREE)
    if (polynomials.max(axis=(0, 2)) >= np.array(kind.primes, dtype=np.uint64)).any():
        raise FrameError("a frame with a coefficient out of range", where=where)
    if not polynomials.any(axis=2).all():
        raise FrameError("a transparent frame: a polynomial of it is zero", where=where)
    return polynomials


def to_seal(frame: bytes, kind: MomentsFrame, *, where: str | None = None) -> bytes:
    """Check a frame and return what SEAL loads, uncompressed."""
    return seal_bytes(check_frame(frame, kind, where=where), kind, seed=frame[-SEED_BYTES:])


def seal_bytes(words: Words, kind: MomentsFrame, *, seed: bytes = b"") -> bytes:
    """Return coefficients of *this process* as SEAL loads them, uncompressed."""
    trailer = _SEED_HEADER + seed if kind.is_seeded else b""
    content = kind.content_prefix + words.astype("<u8").tobytes() + trailer
    return seal_header(len(content)) + content


def from_seal(content: bytes, kind: MomentsFrame) -> bytes:
    """Return as a frame what *this process* had SEAL write.

    Args:
        content: decompressed, without SEAL's header.
        kind: what it is.

    Raises:
        FrameError: something else was written.
    """
    start = len(kind.content_prefix)
    if len(content) != kind.content_bytes or not content.startswith(kind.content_prefix):
        raise FrameError("SEAL wrote a ciphertext of another shape")
    words = np.frombuffer(content, dtype="<u8", count=kind.num_coefficients, offset=start)
    pairs = np.empty(words.size // 2, dtype=_PAIR)
    pairs["low"] = words[0::2] | words[1::2] << _SHIFT
    pairs["high"] = words[1::2] >> _REST
    frame = pairs.tobytes() + (content[-SEED_BYTES:] if kind.is_seeded else b"")
    check_frame(frame, kind)
    return frame
