"""BFV with the error taken out. It exists under tests only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy.encryption.contexts import seal_parameters
from privacy.encryption.frames import FrameKind
from privacy.encryption.keyholder import expand_secret_key
from privacy.encryption.parameters import DATA_PRIME
from privacy.encryption.recovery import _inverse, _root, multiply, scaled_message
from privacy.packing import SLOTS_PER_FRAME


def encrypt_without_error(slots: NDArray[np.int64], key: list[int]) -> bytes:
    """``(round(q m / t) - c1 s, c1)`` as a full frame."""
    second = [int(word) for word in np.random.default_rng(5).integers(1, DATA_PRIME, SLOTS_PER_FRAME)]
    product = multiply(second, [coefficient % DATA_PRIME for coefficient in key])
    first = [(a - b) % DATA_PRIME for a, b in zip(scaled_message(slots), product, strict=True)]
    return FrameKind.FULL.prefix + np.array([*first, *second], dtype="<u8").tobytes()


def key_of(secret: bytes) -> list[int]:
    """The ternary coefficients of a job's key, which SEAL keeps as values at powers of its least root.

    SEAL's order is bit-reversed: place ``i`` holds the value at ``root^(2 rev(i) + 1)``.
    """
    key, size = expand_secret_key(seal_parameters(), secret), SLOTS_PER_FRAME
    plaintext = key.data()  # a view into the key
    root = _root()
    powers = {pow(root, odd, DATA_PRIME): odd for odd in range(1, 2 * size, 2)}
    least = powers[min(powers)]
    values = [0] * size
    for place in range(size):
        reversed_place = int(f"{place:012b}"[::-1], 2)
        exponent = least * (2 * reversed_place + 1) % (2 * size)
        values[exponent // 2] = plaintext[place]
    return [value - DATA_PRIME if value > DATA_PRIME // 2 else value for value in _inverse(values)]
