"""Closed-form ridge and EASE on a label silo's items together with other silos' features.

With ``A = (Y^T Y + λ I)^-1``, moments ``M = Y^T Z``, feature Gram ``C`` and ``S = C + μ I - M^T A M`` (the
Schur complement, k × k), the precision of ``[Y, Z]`` is ``A + U S^-1 U^T`` on the items, ``U = A M``, and
``-S^-1 U^T`` between features and items. Hence, off what the person has already,

    scores = (-y A + w (z - y U) S^-1 U^T) / d^p,    d = diag(A + w U S^-1 U^T)

is EASE (Steck, WWW 2019) for p = 1 and w = 1, and ridge for p = 0; w = 0 is the label silo alone. ``z - y
U`` is what the features say beyond what the items had told.

Several feature silos: ``Z_B^T Z_C`` is known to nobody. It is taken as ``M_B^T A M_C``, what both share
through the label silo's items, which makes S block diagonal: each silo adds its own term.

All of it reads the label silo's rows, exact, and moments that carry their noise already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp

from privacy.errors import DataError, UsageError

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


class JointModelError(DataError):
    """Moments from which no joint model comes."""

    code = "joint_model"


@dataclass(frozen=True)
class Weights:
    """What is chosen on validation users.

    Attributes:
        item_ridge: λ, absolute.
        normalisation: p, 0 (ridge) to 1 (EASE).
        feature_ridges: μ of each feature silo: the larger, the less its features count.
        mixing: w of all features, 0 to 1.
    """

    item_ridge: float
    normalisation: float
    feature_ridges: tuple[float, ...] = ()
    mixing: float = 1.0


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """What the label silo knows of one feature silo.

    Attributes:
        cross: items × features, the opened ``Y^T Z``.
        gram: features × features, positive semidefinite ``Z^T Z``.
    """

    cross: Matrix
    gram: Matrix

    def __post_init__(self) -> None:
        num_features = self.cross.shape[1] if self.cross.ndim == 2 else 0
        if num_features == 0 or self.gram.shape != (num_features, num_features):
            raise JointModelError(
                f"moments of shape {self.cross.shape} with a Gram of shape {self.gram.shape}",
                remedy="take both from the same job",
            )
        if not (np.isfinite(self.cross).all() and np.isfinite(self.gram).all()):
            raise JointModelError("moments that are no numbers", remedy="refuse the feature silo's release")


class ItemSide:
    """The label silo's own half for one ridge: everything that depends on no feature.

    Args:
        rows: users × items, the label silo's training rows.
        ridge: λ, absolute, > 0.
    """

    def __init__(self, rows: sp.csr_matrix, ridge: float) -> None:
        self._solve(np.asarray((rows.T @ rows).toarray(), dtype=np.float64), ridge)

    @classmethod
    def of_gram(cls, gram: Matrix, ridge: float) -> Self:
        """Solve from ``Y^T Y`` where the rows are no longer there."""
        side = cls.__new__(cls)
        side._solve(gram.copy(), ridge)
        return side

    def _solve(self, gram: Matrix, ridge: float) -> None:
        if not ridge > 0:
            raise UsageError(f"item_ridge is {ridge}", where="item_ridge", remedy="choose it above 0")
        gram[np.diag_indices_from(gram)] += ridge
        self.ridge = ridge
        self.inverse: Matrix = scipy.linalg.inv(gram, check_finite=False, assume_a="pos")

    @cached_property
    def diagonal(self) -> Vector:
        """Diagonal of the inverse."""
        return np.diagonal(self.inverse).copy()


class FeatureSide:
    """One feature silo's term on top of an :class:`ItemSide`, for one ridge.

    Args:
        items: the label silo's half.
        moments: of the feature silo.
        ridge: μ, absolute, > 0.
    """

    def __init__(self, items: ItemSide, moments: FeatureMoments, ridge: float) -> None:
        if not ridge > 0:
            raise UsageError(
                f"a feature ridge is {ridge}", where="feature_ridges", remedy="choose it above 0"
            )
        if len(moments.cross) != len(items.inverse):
            raise JointModelError(
                f"moments of {len(moments.cross)} items with rows of {len(items.inverse)}",
                remedy="use the catalogue of the job",
            )
        self.expected: Matrix = items.inverse @ moments.cross
        schur = moments.gram - moments.cross.T @ self.expected
        # Noise makes S indefinite; what is left of it after the projection is the ridge.
        values, vectors = np.linalg.eigh((schur + schur.T) / 2)
        inverse = (vectors / (np.maximum(values, 0.0) + ridge)) @ vectors.T
        self.loadings: Matrix = self.expected @ inverse

    @cached_property
    def diagonal(self) -> Vector:
        """What the features add to the precision of each item, at least 0."""
        added: Vector = np.einsum("ij,ij->i", self.loadings, self.expected)
        return np.maximum(added, 0.0)


class JointModel:
    """Scores one user, or many, from their own rows and their features.

    Args:
        items: the label silo's half.
        features: one term for each feature silo.
        weights: ``normalisation`` and ``mixing`` of it are used here.
    """

    def __init__(self, items: ItemSide, features: Sequence[FeatureSide], weights: Weights) -> None:
        if not 0 <= weights.mixing <= 1 or not 0 <= weights.normalisation <= 1:
            raise UsageError("mixing and normalisation lie between 0 and 1", where="weights")
        self.items = items
        self.features = tuple(features)
        self.weights = weights
        diagonal = items.diagonal + weights.mixing * sum(
            (side.diagonal for side in self.features), np.zeros(len(items.inverse))
        )
        self._scale: Vector = diagonal**-weights.normalisation

    @classmethod
    def fit(cls, rows: sp.csr_matrix, moments: Sequence[FeatureMoments], weights: Weights) -> JointModel:
        """Solve for the label silo's rows and other silos' moments, one ridge in ``weights`` for each.

        Raises:
            JointModelError: sizes that do not belong together.
        """
        if len(moments) != len(weights.feature_ridges):
            raise JointModelError(f"{len(moments)} feature silos, {len(weights.feature_ridges)} ridges")
        items = ItemSide(rows, weights.item_ridge)
        sides = [
            FeatureSide(items, of_silo, ridge)
            for of_silo, ridge in zip(moments, weights.feature_ridges, strict=True)
        ]
        return cls(items, sides, weights)

    def scores(self, rows: sp.csr_matrix, features: Sequence[Matrix | None] = ()) -> Matrix:
        """Scores of all items; those of items that a user has already mean nothing.

        Args:
            rows: users × items, own rows.
            features: users × features of each feature silo; ``None`` where a silo gives none (serving mode
                ``own_features_only``): its term is left out. A row of NaN: it gives none of that user. Left
                out altogether: no silo gives any.

        Returns:
            users × items float64, larger is better.
        """
        given = list(features) or [None] * len(self.features)
        if len(given) != len(self.features):
            raise JointModelError(f"features of {len(given)} silos, the model has {len(self.features)}")
        scores = -np.asarray(rows @ self.items.inverse, dtype=np.float64)
        for side, of_silo in zip(self.features, given, strict=True):
            if of_silo is not None:
                surprise = of_silo - rows @ side.expected
                surprise[np.isnan(of_silo).any(axis=1)] = 0.0
                scores += self.weights.mixing * (surprise @ side.loadings.T)
        return scores * self._scale

    def term(self, silo: int, rows: sp.csr_matrix) -> tuple[Matrix, Vector]:
        """What one silo's features ``z`` add to one user's scores, as ``loadings @ z + offset``.

        Args:
            silo: place among the feature silos.
            rows: 1 × items, the user's own row.

        Returns:
            items × features and (items,), float64.
        """
        side = self.features[silo]
        loadings = self.weights.mixing * self._scale[:, None] * side.loadings
        expected: Vector = np.asarray(rows @ side.expected, dtype=np.float64)[0]
        return loadings, -(loadings @ expected)

    def score(self, items: npt.NDArray[np.integer], features: Sequence[Vector | None] = ()) -> Vector:
        """Scores for one user in session.

        Args:
            items: indices of what the user has at the label silo.
            features: the vector that each feature silo's token brought, ``None`` without one.

        Returns:
            One score for each item, float64.
        """
        row = sp.csr_matrix(
            (np.ones(items.size), (np.zeros(items.size, dtype=np.int64), items)),
            shape=(1, len(self.items.inverse)),
        )
        given = [None if vector is None else vector[None, :] for vector in features]
        scores: Vector = self.scores(row, given)[0]
        return scores
