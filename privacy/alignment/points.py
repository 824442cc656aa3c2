"""Blinded lists as bytes, and what is done to them: every point times a scalar. The curve's only home."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import private_set_intersection.python as psi

from privacy.errors import ProtocolError

POINT_BYTES = 33
"""A compressed point of P-256 (SEC 1, 2.3.3)."""

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256 (SEC 2, 2.4.2): scalars are 1 to ``ORDER - 1``."""

SCALAR_BYTES = 32
_COMPRESSED = (2, 3)
_BATCH = 1_024
"""Points that are Python objects at once: lists of any length pass in bounded memory."""


Mapping: TypeAlias = Callable[[Callable[[Any], bytes], Iterable[Any]], Iterable[bytes]]
"""Calls a function for each batch and gives the results in order: ``map``, or an executor's."""


class PointsError(ProtocolError):
    """A blinded list that cannot be one."""

    code = "points"


def check_points(points: bytes, count: int, *, where: str | None = None) -> npt.NDArray[np.void]:
    """Return a list as an array of points that may be compared, or given to native code.

    Args:
        points: one after the other.
        count: how many there have to be.
        where: whose list it is, for the error.

    Raises:
        PointsError: another number of bytes, an uncompressed point, or one twice.
    """
    if len(points) != count * POINT_BYTES:
        raise PointsError(f"a list of {len(points)} bytes where {count} points are due", where=where)
    octets = np.frombuffer(points, np.uint8).reshape(count, POINT_BYTES)
    if not np.isin(octets[:, 0], _COMPRESSED).all():
        raise PointsError("a list with what is no compressed point", where=where)
    found: npt.NDArray[np.void] = np.frombuffer(points, dtype=f"V{POINT_BYTES}")
    if len(np.unique(found)) != count:
        raise PointsError("a list that has a point twice", where=where)
    return found


def points_of(words: Sequence[str], scalar: int, *, mapping: Mapping = map) -> bytes:
    """Hash words to points and multiply each by a scalar, in their order.

    Args:
        words: any text.
        scalar: 1 to ``ORDER - 1``.
        mapping: how batches are worked through: one after the other, or an executor's ``map``.
    """
    batches = (words[start : start + _BATCH] for start in range(0, len(words), _BATCH))
    return b"".join(mapping(partial(_hashed, scalar), batches))


def multiplied(
    points: bytes, count: int, scalar: int, *, where: str | None = None, mapping: Mapping = map
) -> bytes:
    """Multiply every point of a list by a scalar, in their order.

    Args:
        points: ``count`` points, one after the other.
        count: how many there have to be.
        scalar: 1 to ``ORDER - 1``.
        where: who sent it, for the error.
        mapping: as :func:`points_of`.

    Raises:
        PointsError: see :func:`check_points`; or what is no point of the curve.
    """
    check_points(points, count, where=where)
    product = b"".join(mapping(partial(_product, scalar, where), _batches(points)))
    if len(product) != len(points):
        raise PointsError("a list of which the library made another number of points", where=where)
    return product


def _batches(points: bytes) -> Iterator[bytes]:
    size = _BATCH * POINT_BYTES
    return (points[start : start + size] for start in range(0, len(points), size))


def _hashed(scalar: int, words: Sequence[str]) -> bytes:
    client: Any = psi.client.CreateFromKey(scalar.to_bytes(SCALAR_BYTES, "big"), True)
    return b"".join(client.CreateRequest(words).encrypted_elements)


def _product(scalar: int, where: str | None, points: bytes) -> bytes:
    server: Any = psi.server.CreateFromKey(scalar.to_bytes(SCALAR_BYTES, "big"), True)
    request = psi.Request()
    request.reveal_intersection = True
    request.encrypted_elements.extend(
        points[start : start + POINT_BYTES] for start in range(0, len(points), POINT_BYTES)
    )
    try:
        return b"".join(server.ProcessRequest(request).encrypted_elements)
    except RuntimeError as error:
        raise PointsError("a list with what is no point of the curve", where=where) from error
