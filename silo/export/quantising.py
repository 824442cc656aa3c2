"""Tables in one byte a value: symmetric, one scale for each row.

``value ≈ scale · byte``, ``scale = max|row| / 127``. A row is one item's vector, so a rare item with small
numbers keeps as many steps as a popular one with large numbers. Nothing has to be calibrated on anybody's
rows: the ranges are the tables' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from silo.models.recommender import Floats

STEPS: Final = 127


@dataclass(frozen=True, eq=False)
class QuantisedTable:
    """A table in bytes.

    Attributes:
        values: items × r int8.
        scales: (items,) float32, one for each row.
    """

    values: NDArray[np.int8]
    scales: Floats

    @classmethod
    def of(cls, table: Floats) -> QuantisedTable:
        """Round to the nearest step; a row of zeros, or too small for a float, has scale 1."""
        steps = np.abs(table).max(axis=1, initial=0.0) / STEPS
        scales = np.where(steps >= np.finfo(np.float32).tiny, steps, 1.0).astype(np.float32)
        return cls(np.rint(table / scales[:, None]).astype(np.int8), scales)

    def restored(self) -> Floats:
        """What the bytes stand for, items × r float32."""
        return self.values.astype(np.float32) * self.scales[:, None]
