"""L2 clipping of per-user rows, on a grid where sums are exact.

Two kinds, with the same guarantees: *flat* shortens what is longer than ``max_norm`` and keeps the rest;
*automatic* (Bu, Wang, Zha, Karypis 2023, arXiv:2206.07136) scales every row to almost ``max_norm``, by
``max_norm / (norm + 0.01 max_norm)``, so that the norm is a choice of units and not a setting to tune.

Guarantees
----------
- Every returned row has L2 norm at most ``max_norm`` in *real* arithmetic, whatever was put in: the bound is
  lowered by 2^-30 before scaling, and coordinates are then truncated towards zero.
- Every coordinate is a multiple of a power of two, at least 2^-33 of ``max_norm``, so the float64 sum of up
  to ``MAX_EXACT_ROWS`` such rows is exact. Adding one user to a sum therefore moves it by that user's row and
  by nothing else: the sensitivity of the sum is ``max_norm``, with no floating-point term. That is of rows
  that stay the same to the last bit whoever else is there; gradients do not (``privacy.dpsgd``).

Edges
-----
========================  =================================  =======================================
row                       flat                               automatic
========================  =================================  =======================================
zero                      zero                               zero
norm <= max_norm          itself, truncated to the grid      up to 100 times itself, below max_norm
norm > max_norm           scaled to max_norm, then truncated scaled to 0.99 … 1 max_norm, truncated
any NaN or infinity       zero                               zero
finite, norm overflows    scaled to max_norm                 scaled to max_norm
below the grid            zero                               zero where 100 times itself is below
``max_norm`` 0            zero                               zero
no rows, no columns       empty, same shape                  empty, same shape
========================  =================================  =======================================
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from privacy.errors import UsageError

Clipping = Literal["flat", "automatic"]

MAX_EXACT_ROWS = 1 << 20
AUTOMATIC_STABILITY = 0.01
"""γ of automatic clipping, over ``max_norm``: rows much shorter than it keep their proportions."""

_GRID_BITS = 33
_NORM_SLACK = 2.0**-30
_SMALLEST_NORM = 1e-100
_LARGEST_NORM = 1e100


class ClippingError(UsageError):
    """A clip norm or a batch for which the clipping guarantees would not hold."""

    code = "clipping"


def clip_rows(
    rows: npt.NDArray[np.floating], max_norm: float, mode: Clipping = "flat"
) -> npt.NDArray[np.float64]:
    """Clip each row to L2 norm ``max_norm``; see the module's guarantees and table of edges.

    Args:
        rows: shape (users, values), any float dtype.
        max_norm: 0, or between 1e-100 and 1e100.
        mode: ``flat`` or ``automatic``, see the module.

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
    directions *= _new_scale(scale, lengths, limit, mode)[:, None]
    quantum = grid_of(max_norm)
    directions /= quantum
    np.trunc(directions, out=directions)
    directions *= quantum
    return directions


def clip_factors(
    norms: npt.NDArray[np.float64], max_norm: float, mode: Clipping = "flat"
) -> npt.NDArray[np.float64]:
    """What to multiply gradients of these norms with, so that none is longer than ``max_norm``.

    Guarantees: ``factor * norm <= max_norm`` in real arithmetic, with room for a relative error of 2^-31 in
    the norm and one rounding of the factor. Where ``clip_rows`` scales rows, this names the scale.

    Args:
        norms: of whole gradients, at least 0; NaN or infinity means nobody, and gets 0.
        max_norm: as in ``clip_rows``.
        mode: ``flat`` or ``automatic``.

    Returns:
        Factors of the same shape; at most 1 (flat) or 100 (automatic).

    Raises:
        ClippingError: ``max_norm`` is out of range.
    """
    check_max_norm(max_norm)
    usable = np.isfinite(norms)
    if max_norm == 0:
        return np.zeros(norms.shape)
    length = np.where(usable, norms, 1.0)
    limit = max_norm * (1 - _NORM_SLACK)
    if mode == "automatic":
        factors = limit / (length + AUTOMATIC_STABILITY * max_norm)
    else:
        factors = np.minimum(1.0, limit / np.maximum(length, limit))
    return np.where(usable, factors, 0.0)


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


def _new_scale(
    scale: npt.NDArray[np.float64], lengths: npt.NDArray[np.float64], limit: float, mode: Clipping
) -> npt.NDArray[np.float64]:
    """Multiplier of rows of ``lengths``, which stand for rows ``scale`` times as long."""
    if mode == "flat":
        return np.minimum(scale, limit / lengths)
    # A row of denormals divides the constant by next to nothing: infinity, and a multiplier of 0, are right.
    with np.errstate(over="ignore"):
        return limit / (lengths + AUTOMATIC_STABILITY * limit / scale)
