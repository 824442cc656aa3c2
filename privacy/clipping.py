"""L2 clipping of per-user rows, on a grid where sums are exact.

Guarantees
----------
- Every returned row has L2 norm at most ``max_norm`` in *real* arithmetic, whatever was put in: the bound is
  lowered by 2^-30 before scaling, and coordinates are then truncated towards zero.
- Every coordinate is a multiple of a power of two, at least 2^-33 of ``max_norm``, so the float64 sum of up
  to ``MAX_EXACT_ROWS`` such rows is exact. Adding one user to a sum therefore moves it by that user's row and
  by nothing else: the sensitivity of the sum is ``max_norm``, with no floating-point term.

Edges
-----
========================  =================================
row                       result
========================  =================================
zero                      zero
norm <= max_norm          itself, truncated to the grid
norm > max_norm           scaled to max_norm, then truncated
any NaN or infinity       zero
finite, norm overflows    scaled to max_norm
below the grid            zero
``max_norm`` 0            zero
no rows, no columns       empty, same shape
========================  =================================
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from privacy.errors import UsageError

MAX_EXACT_ROWS = 1 << 20
_GRID_BITS = 33
_NORM_SLACK = 2.0**-30
_SMALLEST_NORM = 1e-100
_LARGEST_NORM = 1e100


class ClippingError(UsageError):
    """A clip norm or a batch for which the clipping guarantees would not hold."""

    code = "clipping"


def clip_rows(rows: npt.NDArray[np.floating], max_norm: float) -> npt.NDArray[np.float64]:
    """Clip each row to L2 norm ``max_norm``; see the module's guarantees and table of edges.

    Args:
        rows: shape (users, values), any float dtype.
        max_norm: 0, or between 1e-100 and 1e100.

    Returns:
        New array of the same shape, float64.

    Raises:
        ClippingError: ``max_norm`` is negative, not finite or out of range, or ``rows`` is not a matrix.
    """
    check_max_norm(max_norm)
    if rows.ndim != 2:
        raise ClippingError(
            f"rows have {rows.ndim} dimensions", where="rows", remedy="pass one row of values for each user"
        )
    if max_norm == 0 or rows.size == 0:
        return np.zeros(rows.shape, dtype=np.float64)
    limit = max_norm * (1 - _NORM_SLACK)
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    usable = np.isfinite(largest) & (largest > 0)
    scale = np.where(usable, largest, 1.0)
    # Dividing by the largest coordinate first keeps the norm from over- and underflowing.
    directions = np.where(usable[:, None], rows, 0.0).astype(np.float64) / scale[:, None]
    lengths = np.maximum(np.sqrt(np.square(directions).sum(axis=1)), 1.0)
    directions *= np.minimum(scale, limit / lengths)[:, None]
    quantum = grid_of(max_norm)
    directions /= quantum
    np.trunc(directions, out=directions)
    directions *= quantum
    return directions


def grid_of(max_norm: float) -> float:
    """The power of two of which all coordinates of rows clipped to ``max_norm`` are multiples."""
    return math.ldexp(1.0, math.frexp(max_norm)[1] - _GRID_BITS)


def check_max_norm(max_norm: float) -> None:
    """Refuse clip norms without guarantees.

    Raises:
        ClippingError: ``max_norm`` is negative, not finite, or neither 0 nor within 1e-100 … 1e100.
    """
    if max_norm != 0 and not _SMALLEST_NORM <= max_norm <= _LARGEST_NORM:
        raise ClippingError(
            f"max_norm is {max_norm}", where="max_norm", remedy="choose a norm between 1e-100 and 1e100, or 0"
        )
