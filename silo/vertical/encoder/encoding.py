"""A frozen encoder applied: a row in, few numbers out."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

from privacy.clipping import clip_rows
from silo.vertical.columns import unit_rows
from silo.vertical.joint.model import Matrix

PEOPLE_AT_ONCE = 4096
_LENGTHENED = 1e6
"""Numbers are stretched before they are clipped: any length but nothing becomes 1, and noise weighs least."""


def numbers_of(rows: sp.csr_matrix, columns: sp.csr_matrix, weight: Matrix) -> Matrix:
    """Return people's numbers, norm at most 1 and almost 1; zeros for whoever has no row.

    Args:
        rows: people × items.
        columns: items × columns.
        weight: columns × k, of the frozen encoder.
    """
    made = np.zeros((rows.shape[0], weight.shape[1]))
    for start in range(0, rows.shape[0], PEOPLE_AT_ONCE):
        block = unit_rows(rows[start : start + PEOPLE_AT_ONCE], columns)
        made[start : start + PEOPLE_AT_ONCE] = encoded(block, weight)
    return made


def encoded(block: Matrix, weight: Matrix) -> Matrix:
    """Return the numbers of some people: the same to the last bit for each, whoever else is among them.

    Args:
        block: people × columns, rows of norm 1 or zero.
        weight: columns × k.
    """
    return clip_rows(curved(block, weight) * _LENGTHENED, 1.0)


def curved(block: Matrix, weight: Matrix) -> Matrix:
    """Return what leaves the encoder's hidden layer, before it is brought to norm 1.

    A matrix product rounds a row differently with the number of rows, and one person more would then move
    everybody's release. Here each sum is taken column by column, and the tangent one value at a time.
    """
    total = np.zeros((len(block), weight.shape[1]))
    for column, loads in zip(block.T, weight, strict=True):
        total += column[:, None] * loads
    values = np.fromiter(map(math.tanh, total.ravel().tolist()), np.float64, total.size)
    return values.reshape(total.shape)
