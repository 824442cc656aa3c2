"""The noise on moments: exact discrete Gaussian noise on every coefficient of what is sent back.

Guarantees
----------
Noise ``g`` is an integer polynomial of 4096 independent coefficients for each ciphertext, at the product's
scale. The canonical embedding is a multiple of a unitary map, so its 2048 slots carry independent complex
Gaussian noise, the same standard deviation in real and imaginary parts, slots without an item included.

What the label silo can open is, coefficient by coefficient, ``Σ_u ẑ_u (p_u + e_u) + g`` and terms of fresh
randomness that nobody knows: ``ẑ_u`` the feature silo's integer multipliers, ``p_u + e_u`` a row as encoded,
with its encryption's error, which the label silo knows. One feature row moves that sum by at most
``Δ = (2^28 + 3√k) · 2^28 (C + 0.001) / √2048`` (L2 over all k ciphertexts of its part).

``g = 2^b h + l``: ``h`` discrete Gaussian (``privacy.noise``, exact), ``l`` uniform on ``2^b`` integers.
Adding an integer ``n`` gives ``2^b (h + ⌈(n - l')/2^b⌉) + l'`` with ``l' = (n + l) mod 2^b``, uniform
whatever ``n`` is. Given ``l'`` this is the discrete Gaussian mechanism, and the two roundings of neighbours
differ by less than 1 more than ``n/2^b`` does, in each coefficient. Hence sensitivity ``Δ/2^b + √(4096 k)``
in units of ``h``, which is what the event's noise multiplier refers to (b is 24 or more: about 1e-6 more
noise).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from privacy.encryption.crossmoments.parameters import (
    DEGREE,
    ENCRYPTION_ERROR_NORM,
    NUM_SLOTS,
    PRODUCT_SCALE,
    SCALE,
    MomentsShape,
)
from privacy.events import GaussianEvent
from privacy.noise import NoiseError, NoiseShare, WordSource, unsampled

_MIN_LOW_BITS = 24
_LARGEST_HIGH_STD = 2.0**30
_LARGEST_STD = 40_000.0
"""In moments: with it, ten standard deviations of a coefficient still fit beside the largest sum."""


class MomentsNoise(NamedTuple):
    """Integer polynomials at the product's scale, and the event of the code that drew them."""

    polynomials: npt.NDArray[np.int64]
    event: GaussianEvent


class MomentsNoiseSource:
    """The noise of one release of moments. It is drawn once; drawing again is an error.

    Args:
        promised: the event that was reserved.
        shape: what is computed.

    Raises:
        NoiseError: noise that would overflow the sums.
    """

    def __init__(self, promised: GaussianEvent, shape: MomentsShape) -> None:
        self.std = noise_std(promised.noise_multiplier, shape)
        """Standard deviation of real and imaginary part of each slot, in moments."""
        if self.std > _LARGEST_STD:
            raise NoiseError(
                f"noise of std {self.std:.3g} would overflow the sums",
                where="noise_multiplier",
                remedy="promise a larger epsilon, or scale the labels down",
            )
        shift = row_shift(shape) * shape.rows_per_person
        rounding = math.sqrt(DEGREE * shape.num_features * min(shape.num_parts, shape.rows_per_person))
        self._low_bits = _MIN_LOW_BITS
        while promised.noise_multiplier * (shift / 2**self._low_bits + rounding) > _LARGEST_HIGH_STD / 2:
            self._low_bits += 1
        sensitivity = (shift / 2**self._low_bits + rounding) * (1 + 1e-12)
        high_std = promised.noise_multiplier * sensitivity
        self._high = NoiseShare(high_std, num_shares=1, sensitivity=sensitivity, promised=promised)
        self.shape = shape

    def draw(self, *, unsafe_source: WordSource | None = None) -> MomentsNoise:
        """Draw it, in the process that adds it.

        Args:
            unsafe_source: a deterministic source, in tests only.

        Returns:
            Shape (parts, features, 4096) int64, and the event to charge for them.

        Raises:
            RandomnessReuseError: it was drawn before.
        """
        source = WordSource.from_os() if unsafe_source is None else unsafe_source
        sizes = (self.shape.num_parts, self.shape.num_features, DEGREE)
        high, event = self._high.add_to(np.zeros(sizes, dtype=np.int64), unsafe_source=source)
        words = source.words(high.size).reshape(high.shape)
        low = (words >> np.uint64(64 - self._low_bits)).astype(np.int64) - (1 << self._low_bits - 1)
        return MomentsNoise((high << self._low_bits) + low, unsampled(event))


def noise_std(noise_multiplier: float, shape: MomentsShape) -> float:
    """Standard deviation of the noise on each moment (and on each imaginary part), in moments.

    That is ``noise_multiplier · rows_per_person · (max_row_norm + 0.001)``, to six digits.
    """
    return noise_multiplier * shape.rows_per_person * row_shift(shape) * math.sqrt(NUM_SLOTS) / PRODUCT_SCALE


def row_shift(shape: MomentsShape) -> float:
    """The most, in L2 over coefficients, that one feature row of norm 1 moves the encrypted sums."""
    label_norm = SCALE * (shape.max_row_norm + ENCRYPTION_ERROR_NORM) / math.sqrt(NUM_SLOTS)
    return label_norm * (SCALE + 3 * math.sqrt(shape.num_features))
