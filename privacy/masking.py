"""One-time masks that vanish in the sum of the whole roster, and the tag that proves the sum.

Every pair of silos shares a keystream of integers modulo ``t``; the one whose name sorts lower adds it,
the other subtracts it. Over the whole roster the masks sum to zero.

Guarantees:
    * A masked slot is exactly uniform modulo ``t`` to anyone who lacks one of its pair keys: the words of
      AES-256-CTR (NIST SP 800-38A) are cut to 47 bits and those ``>= t`` are dropped, never reduced.
    * The tag ``Σ r_j v_j mod t`` is linear: the sum of the silos' tags is the tag of the sum. Whoever does
      not know the coefficients and adds an offset passes with probability ``1 / t``, about 2^-47.
    * The tag is taken over masked slots, so it tells a key-holding colluder nothing about them.

A pair key masks one contribution. Masks used twice are a two-time pad: the difference of the two masked
vectors is the difference of the two contributions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from privacy.errors import UsageError
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME, Integers

_WORD_BYTES = 8
_HALF_BITS = 24
_HALF_MASK = (1 << _HALF_BITS) - 1


class MaskError(UsageError):
    """Keys or slots with which a contribution would not be masked."""

    code = "mask"


class Keystream:
    """Uniform integers modulo ``t`` from one 256-bit key.

    The stream is the sequence of little-endian 64-bit words of AES-256-CTR with a zero initial counter
    block, each cut to its low bits (as many as ``modulus`` has), without the words ``>= modulus``. How it
    is divided into :meth:`take` calls does not change it. Known answers: ``tests/golden``.

    Args:
        key: 32 bytes, used for this stream only.
        modulus: below 2^63.
    """

    def __init__(self, key: bytes, modulus: int = PLAIN_MODULUS) -> None:
        if len(key) != 32:
            raise MaskError(f"a keystream needs a key of 32 bytes, not {len(key)}")
        self._modulus = modulus
        self._word_mask = np.uint64((1 << modulus.bit_length()) - 1)
        self._cipher: CipherContext = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def take(self, count: int) -> Integers:
        """Return the next ``count`` integers, int64 in ``[0, modulus)``."""
        accepted = self._accepted(count)
        while len(accepted) < count:
            accepted = np.concatenate((accepted, self._accepted(count - len(accepted))))
        return accepted.view(np.int64)

    def _accepted(self, words: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        stream = np.frombuffer(self._cipher.update(bytes(_WORD_BYTES * words)), dtype="<u8") & self._word_mask
        within = stream < self._modulus
        return stream if within.all() else stream[within]


class Masks:
    """The masks of one silo's one contribution, in the order of its slots.

    Args:
        pair_keys: other silo's name -> 32-byte pair key of purpose ``MASK`` of this (round, attempt).
        me: this silo's name.

    Raises:
        MaskError: no peer, this silo among its own peers, or one key for two peers.
    """

    def __init__(self, pair_keys: Mapping[str, bytes], me: str) -> None:
        if not pair_keys:
            raise MaskError("a contribution without a peer would leave unmasked")
        if me in pair_keys:
            raise MaskError(f"{me!r} is listed as its own peer; that mask would vanish")
        if len(set(pair_keys.values())) != len(pair_keys):
            raise MaskError("two peers have the same pair key; their masks could cancel")
        self._streams = [
            (Keystream(key), me.encode() < peer.encode()) for peer, key in sorted(pair_keys.items())
        ]

    def apply(self, slots: Integers) -> Integers:
        """Mask the next slots.

        Args:
            slots: int64 in ``[0, t)``; not changed.

        Returns:
            As many slots, each uniform in ``[0, t)``.
        """
        masked = slots.copy()
        for stream, adds in self._streams:
            mask = stream.take(len(slots))
            if adds:
                masked += mask
            else:
                masked -= mask
        # Once for all peers: up to 190 summands of 47 bits stay far below 2^63.
        masked %= PLAIN_MODULUS
        return masked


class Tag:
    """Running ``Σ r_j v_j mod t`` over slots in their order.

    Args:
        tag_key: 32 bytes, shared by the roster, unknown to the coordinator, of one (round, attempt).
    """

    def __init__(self, tag_key: bytes) -> None:
        self._coefficients = Keystream(tag_key)
        self._sum = 0

    def update(self, slots: Integers) -> None:
        """Take in the next slots, int64 in ``[0, t)``."""
        for start in range(0, len(slots), SLOTS_PER_FRAME):
            part = slots[start : start + SLOTS_PER_FRAME]
            self._sum += _inner_product(self._coefficients.take(len(part)), part)
        self._sum %= PLAIN_MODULUS

    def value(self) -> int:
        """Return the tag of what was taken in so far, in ``[0, t)``."""
        return self._sum


def keystream_mod_t(key: bytes, count: int) -> Integers:
    """Return the first ``count`` integers of the :class:`Keystream` of ``key``."""
    return Keystream(key).take(count)


def apply_masks(slots: Integers, pair_keys: Mapping[str, bytes], me: str) -> Integers:
    """Mask a whole vector of slots (see :class:`Masks`)."""
    return Masks(pair_keys, me).apply(slots)


def tag_coefficients(tag_key: bytes, count: int) -> Integers:
    """Return the first ``count`` tag coefficients ``r_j``."""
    return keystream_mod_t(tag_key, count)


def tag_of(slots: Integers, tag_key: bytes) -> int:
    """Return the tag of a whole vector of slots (see :class:`Tag`)."""
    tag = Tag(tag_key)
    tag.update(slots)
    return tag.value()


def _inner_product(left: Integers, right: Integers) -> int:
    """Return the exact inner product of up to 4096 pairs of 47-bit integers.

    Halves of 24 bits keep every partial sum below 2^61.
    """
    left_high, left_low = left >> _HALF_BITS, left & _HALF_MASK
    right_high, right_low = right >> _HALF_BITS, right & _HALF_MASK
    high = int(left_high @ right_high)
    middle = int(left_high @ right_low) + int(left_low @ right_high)
    low = int(left_low @ right_low)
    return (high << 2 * _HALF_BITS) + (middle << _HALF_BITS) + low
