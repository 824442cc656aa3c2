"""The one set of CKKS parameters and what follows from it, as constants. Nothing here loads TenSEAL.

128 bits of security by the table of the Homomorphic Encryption Standard: at degree 4096 the coefficient
modulus may have 109 bits, and three primes of 36 are used, of which two carry data. Labels and features have
scale 2^28, so a moment has scale 2^56 and at most 2^15 fits below half of the 72-bit modulus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privacy.errors import UsageError

DEGREE = 4096
NUM_SLOTS = DEGREE // 2
COEFFICIENT_MODULUS_BITS = (36, 36, 36)
KEY_PRIMES = (0xFFFFBE001, 0xFFFFC4001, 0xFFFFEE001)
DATA_PRIMES = KEY_PRIMES[:2]
DATA_PARAMETERS_ID = bytes.fromhex("0ff319a6875993f3b1d1cd4ed5831f3290136cc96150db2ca6bd4d9f92f77f73")
KEY_PARAMETERS_ID = bytes.fromhex("60f6ce170c5bfe450437c5e544e6eb8fe07ece6e0afa9891583ef303f56fedbc")
"""SEAL's hashes of the parameters, with and without the third prime."""

SCALE_BITS = 28
SCALE = 1 << SCALE_BITS
PRODUCT_SCALE = SCALE * SCALE

MAX_ITEMS = 2 * NUM_SLOTS
"""Items in a ciphertext: two to a slot, because features are real and leave both parts apart."""

MAX_PART_SUM = 1 << 14
"""Largest ``slots · max_entry`` of one sum; the rest of 2^15 is for the complex modulus and the noise."""

MAX_ROWS_PER_PERSON = 20_001
"""``1 + 2 · max_degree`` of the largest degree. A spine of people in common may have fewer slots."""

ENCRYPTION_ERROR_NORM = 0.001
"""What encoding and encrypting can add to a row's norm.

A coefficient of a symmetric encryption's error is at most 21 (SEAL cuts it there), of rounding 1/2: with 4096
of them 1376 of the ``2^28 · 0.001 / √2048`` = 5931 that this stands for.
"""


class MomentsShapeError(UsageError):
    """Sizes or bounds for which moments cannot be computed under these parameters."""

    code = "moments_shape"


@dataclass(frozen=True)
class MomentsShape:
    """What both silos know of one computation before it begins; every size follows from it.

    Args:
        num_slots: people on the spine, empty slots included.
        num_items: of the label silo, at most 4096.
        num_features: of the feature silo.
        max_row_norm: bound on the L2 norm of a label row.
        max_entry: bound on the absolute value of its entries; at most ``max_row_norm``.
        rows_per_person: in how many feature rows one person is: 1, or ``1 + 2 · max_degree`` where the
            unit is a node of a friend graph.

    Raises:
        MomentsShapeError: out of range.
    """

    num_slots: int
    num_items: int
    num_features: int
    max_row_norm: float
    max_entry: float = 1.0
    rows_per_person: int = 1

    def __post_init__(self) -> None:
        checks = {
            "num_slots": (1 <= self.num_slots <= 1 << 24, "1 to 2^24"),
            "num_items": (1 <= self.num_items <= MAX_ITEMS, f"1 to {MAX_ITEMS}; keep the most frequent ones"),
            "num_features": (1 <= self.num_features <= 1024, "1 to 1024"),
            "max_row_norm": (1e-3 <= self.max_row_norm <= 1e4, "0.001 to 10,000"),
            "max_entry": (0 < self.max_entry <= self.max_row_norm, "above 0, at most max_row_norm"),
            "rows_per_person": (1 <= self.rows_per_person <= MAX_ROWS_PER_PERSON, "1 to 20,001"),
        }
        for name, (fits, expected) in checks.items():
            if not fits:
                raise MomentsShapeError(
                    f"{name} is {getattr(self, name)}", where=name, remedy=f"choose {expected}"
                )
        if self.max_entry > MAX_PART_SUM:
            raise MomentsShapeError("one entry fills a sum", where="max_entry", remedy="scale the labels")

    @property
    def slots_per_part(self) -> int:
        """How many slots one sum holds without overflow."""
        return max(1, min(self.num_slots, math.floor(MAX_PART_SUM / self.max_entry)))

    @property
    def num_parts(self) -> int:
        """Into how many sums the spine is split; each has its own noise, the label silo adds them."""
        return -(-self.num_slots // self.slots_per_part)

    @property
    def num_sums(self) -> int:
        """Ciphertexts that come back: one for each part and feature."""
        return self.num_parts * self.num_features
