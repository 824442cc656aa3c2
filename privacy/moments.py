"""What a feature silo releases of its rows: a noised Gram, a basis that comes of it, the features' Gram.

A DP-PCA basis (Dwork, Talwar, Thakurta, Zhang 2014) reads the rows once: basis and ``Z^T Z`` are both
post-processing of the same noised Gram. A basis made of public item vectors is free; its ``Z^T Z`` is not,
and comes from the noised Gram of the projected rows.

Guarantees
----------
- Rows count with norm at most 1 (clipped; not a number: nothing), truncated to integers of norm at most
  ``2^g``. The upper triangle of one row's outer product then has L2 norm at most ``4^g``, sums are exact, and
  the noise is discrete Gaussian on that grid (``privacy.noise``).
- The event comes from the object that drew the noise; the noise is used once.
- Where one person is in several rows (a node of a friend graph, in its own row and in ``max_degree``
  others'), ``rows_per_person = 1 + 2 · max_degree`` multiplies the noise: a row of norm at most 1 that
  becomes any other moves, and its outer product too, by at most 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from privacy.clipping import clip_rows
from privacy.errors import DataError
from privacy.events import SAMPLER, GaussianEvent
from privacy.noise import NoiseError, NoiseShare, WordSource, unsampled

Matrix = npt.NDArray[np.float64]

BASIS_SHARE = 0.3
_MAX_GRID_BITS, _MIN_GRID_BITS = 14, 8
_LARGEST_STD = 2.0**30
_MAX_ROWS = 1 << 24
_SCALE = 100_000
_BLOCK_ROWS = 2048
_ORTHONORMAL_TOLERANCE = 1e-6


class BasisError(DataError):
    """A basis that nothing can be projected on, or that would tell of rows without noise."""

    code = "basis"


class FeatureEvents(NamedTuple):
    """The two releases of a feature silo; their zCDP adds up to ``1 / (2 noise_multiplier²)``."""

    basis: GaussianEvent
    moments: GaussianEvent


def feature_events(noise_multiplier: float, *, basis_share: float = BASIS_SHARE) -> FeatureEvents:
    """Split one Gaussian's budget: ``basis_share`` of its zCDP for the Gram, the rest for the moments.

    Multipliers are rounded up at the fifth decimal, so that together they cost at most the whole.

    Args:
        noise_multiplier: of a single release with all of the budget, from
            :func:`privacy.calibration.calibrate_noise_multiplier`.
        basis_share: in (0, 1).

    Raises:
        NoiseError: out of range.
    """
    if not 0 < basis_share < 1 or not 0 < noise_multiplier < math.inf:
        raise NoiseError(
            f"noise multiplier {noise_multiplier} with basis_share {basis_share}",
            where="basis_share",
            remedy="choose a positive multiplier and a share between 0 and 1",
        )
    shares = (basis_share, 1 - basis_share)
    multipliers = (math.ceil(_SCALE * noise_multiplier / math.sqrt(share)) / _SCALE for share in shares)
    return FeatureEvents(*(GaussianEvent(noise_multiplier=value, sampler=SAMPLER) for value in multipliers))


@dataclass(frozen=True, eq=False)
class NoisedGram:
    """A noised Gram of rows, and the event that pays for it and for all that is computed from it.

    Attributes:
        values: symmetric, in units of rows of norm 1.
        std: standard deviation of the noise of each entry.
        event: what drew the noise.
    """

    values: Matrix
    std: float
    event: GaussianEvent


class GramNoise:
    """The noise of one Gram. It is drawn once; a second Gram with it is an error.

    Args:
        promised: the event that was reserved.
        rows_per_person: see the module.

    Raises:
        NoiseError: so much noise that no grid holds it.
    """

    def __init__(self, promised: GaussianEvent, *, rows_per_person: int = 1) -> None:
        if rows_per_person < 1:
            raise NoiseError(f"rows_per_person is {rows_per_person}", remedy="a person is in 1 row or more")
        self._bits = _MAX_GRID_BITS
        while self._bits > _MIN_GRID_BITS and self._std(promised, rows_per_person) > _LARGEST_STD:
            self._bits -= 1
        self._share = NoiseShare(
            self._std(promised, rows_per_person),
            num_shares=1,
            sensitivity=float(rows_per_person * 4**self._bits),
            promised=promised,
        )
        self.std = promised.noise_multiplier * rows_per_person
        """Of each entry, in units of rows of norm 1."""

    def _std(self, promised: GaussianEvent, rows_per_person: int) -> float:
        return promised.noise_multiplier * rows_per_person * 4.0**self._bits

    def noised_gram(self, rows: Matrix, *, unsafe_source: WordSource | None = None) -> NoisedGram:
        """Return the Gram of rows with this noise on its upper triangle, mirrored.

        Args:
            rows: shape (people, columns); clipped to norm 1.
            unsafe_source: a deterministic source, in tests only.

        Raises:
            RandomnessReuseError: this noise was used before.
        """
        triangle = np.triu_indices(rows.shape[1])
        exact = integer_gram(rows, self._bits)[triangle]
        noised, event = self._share.add_to(exact, unsafe_source=unsafe_source)
        values = np.zeros((rows.shape[1], rows.shape[1]))
        values[triangle] = noised / 4.0**self._bits
        values.T[triangle] = values[triangle]
        return NoisedGram(values, self.std, unsampled(event))


def integer_gram(rows: Matrix, grid_bits: int) -> npt.NDArray[np.int64]:
    """Return the exact Gram of rows as integers: clipped to norm 1, times ``2^grid_bits``, truncated.

    Args:
        rows: shape (people, columns), at most 2^24 people.
        grid_bits: at most 14, so that float64 adds these integers exactly.
    """
    if len(rows) > _MAX_ROWS:
        raise NoiseError(f"{len(rows)} rows are more than sums are exact for", remedy="use at most 2^24 rows")
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.trunc(clip_rows(rows[start : start + _BLOCK_ROWS], 1.0) * 2.0**grid_bits)
        total += block.T @ block
    return total.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Features:
    """How rows become features, and what may be told of these: basis and Gram carry noise or are public.

    Attributes:
        basis: columns × features, orthonormal: features of a row of norm 1 have norm at most 1.
        gram: features × features, positive semidefinite: the noised ``Z^T Z``.
        events: what was spent on both.
    """

    basis: Matrix
    gram: Matrix
    events: tuple[GaussianEvent, ...]

    def project(self, rows: Matrix) -> Matrix:
        """Return the features of rows, clipped to norm 1: shape (people, features)."""
        return clip_rows(rows, 1.0) @ self.basis


def private_basis(gram: NoisedGram, num_features: int) -> Features:
    """DP-PCA: the leading eigenvectors of a noised Gram, and ``Z^T Z`` from the same Gram.

    There is no variant for a Gram without noise: such a basis depends on everybody.

    Args:
        gram: of the raw rows.
        num_features: at most its size.

    Raises:
        BasisError: fewer directions than features stand out of the noise as positive, or no noised Gram.
    """
    if not isinstance(gram, NoisedGram):
        raise BasisError(
            "a basis that depends on rows needs a noised Gram",
            remedy="draw the noise, or take public vectors",
        )
    _check_size(num_features, len(gram.values))
    vectors: Matrix = np.linalg.eigh(gram.values)[1][:, ::-1][:, :num_features]
    of_features = positive_gram(vectors.T @ gram.values @ vectors)
    return Features(vectors, of_features, (gram.event,))


def public_basis(vectors: Matrix, rows: Matrix, noise: GramNoise) -> Features:
    """A basis that spans public vectors of the columns (item embeddings): only ``Z^T Z`` is paid for.

    Args:
        vectors: columns × features, made without anybody's rows.
        rows: people × columns.
        noise: for the Gram of the features.

    Raises:
        BasisError: the vectors are linearly dependent, or the noised Gram has no positive diagonal.
    """
    _check_size(vectors.shape[1], vectors.shape[0])
    basis, triangle = np.linalg.qr(vectors.astype(np.float64))
    diagonal = np.abs(np.diagonal(triangle))
    if not (diagonal > _ORTHONORMAL_TOLERANCE * max(float(diagonal.max()), 1e-300)).all():
        raise BasisError("the public vectors are linearly dependent", remedy="give fewer or other vectors")
    gram = noise.noised_gram(clip_rows(rows, 1.0) @ basis)
    return Features(basis, positive_gram(gram.values), (gram.event,))


def positive_gram(gram: Matrix) -> Matrix:
    """Project a noised Gram on the positive semidefinite ones (nearest in Frobenius norm).

    Raises:
        BasisError: an entry of the diagonal is not positive: that feature is nothing but noise.
    """
    if not (np.diagonal(gram) > 0).all():
        raise BasisError(
            f"{np.count_nonzero(~(np.diagonal(gram) > 0))} features have no positive length under the noise",
            remedy="take fewer features, or promise a larger epsilon",
        )
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    projected: Matrix = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return projected


def _check_size(num_features: int, num_columns: int) -> None:
    if not 1 <= num_features <= num_columns:
        raise BasisError(
            f"{num_features} features of {num_columns} columns", remedy="take at least 1 and at most all"
        )
