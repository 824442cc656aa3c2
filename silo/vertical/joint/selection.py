"""Which weights: tried on half of the label silo's users, reported on the other half.

Both halves are the label silo's own, and the moments carry their noise already: trying costs nothing towards
anybody. The label silo alone is chosen in the same way and stays in the running (mixing 0): features that
bring nothing on the validation users are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from silo.evaluation import NothingToEvaluateError, Rankings, per_user_metrics, rank_scores
from silo.vertical.joint.model import (
    FeatureMoments,
    FeatureSide,
    ItemSide,
    JointModel,
    JointModelError,
    Matrix,
    Weights,
)

METRIC = "ndcg@20"
"""What the weights are chosen by."""

ITEM_RIDGES = (30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4)
NORMALISATIONS = (0.0, 0.5, 1.0)
FEATURE_RIDGES = (1.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 1e5)
MIXINGS = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class LabelUsers:
    """The label silo's users, split for choosing and reporting.

    Args:
        rows: users × items, training rows of 0 and 1.
        held_out: users × items, what is to be found; users without any are not counted.
        is_validation: one flag a user: weights are chosen on these, figures come from the others.
    """

    rows: sp.csr_matrix
    held_out: sp.csr_matrix
    is_validation: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.rows.shape != self.held_out.shape or self.is_validation.shape != (self.rows.shape[0],):
            raise JointModelError("training rows, held-out rows and flags are not of the same users")
        for half in (self.validation, self.test):
            if not half.size:
                raise NothingToEvaluateError(
                    "no user of one half has held-out items", remedy="Hold out rows of more users."
                )

    @property
    def validation(self) -> npt.NDArray[np.int64]:
        """Users on whom weights are chosen."""
        return np.flatnonzero(self.is_validation & self._has_held_out)

    @property
    def test(self) -> npt.NDArray[np.int64]:
        """Users of whom figures are reported."""
        return np.flatnonzero(~self.is_validation & self._has_held_out)

    @property
    def _has_held_out(self) -> npt.NDArray[np.bool_]:
        has: npt.NDArray[np.bool_] = np.diff(self.held_out.indptr) > 0
        return has


def random_halves(num_users: int, seed: int) -> npt.NDArray[np.bool_]:
    """Flags of the validation users: half of them, at random."""
    flags = np.zeros(num_users, dtype=np.bool_)
    flags[np.random.default_rng(seed).permutation(num_users)[: num_users // 2]] = True
    return flags


@dataclass(frozen=True, eq=False)
class Chosen:
    """A model and how it did on the users it was not chosen on.

    Attributes:
        model: fitted on all rows.
        weights: what was chosen.
        validation: ``METRIC`` on the validation users.
    """

    model: JointModel
    weights: Weights
    validation: float


def choose_alone(users: LabelUsers, gram: Matrix | None = None) -> Chosen:
    """Return the best of ridge and EASE on the label silo's own rows.

    Args:
        users: who chooses.
        gram: ``Y^T Y`` of all its people, where ``users`` are only some of them; left out: theirs.
    """
    if gram is None:
        gram = np.asarray((users.rows.T @ users.rows).toarray(), dtype=np.float64)
    tried = (
        _judged(users, JointModel(items, (), Weights(items.ridge, normalisation)), ())
        for items in (ItemSide.of_gram(gram, ridge) for ridge in ITEM_RIDGES)
        for normalisation in NORMALISATIONS
    )
    return max(tried, key=_validation)


def choose_joint(
    users: LabelUsers, alone: Chosen, moments: Sequence[FeatureMoments], features: Sequence[Matrix]
) -> Chosen:
    """Return the best joint model: one silo's ridge after the other, each with the best mixing of all.

    Args:
        users: the label silo's.
        alone: of :func:`choose_alone`; its item ridge and normalisation are kept.
        moments: of each feature silo.
        features: of each feature silo, users × features, as each user's session will bring them.
    """
    items = alone.model.items
    sides = {
        (silo, ridge): FeatureSide(items, of_silo, ridge)
        for silo, of_silo in enumerate(moments)
        for ridge in FEATURE_RIDGES
    }

    def model_of(weights: Weights) -> JointModel:
        chosen = [sides[silo, ridge] for silo, ridge in enumerate(weights.feature_ridges)]
        return JointModel(items, chosen, weights)

    ridges = (FEATURE_RIDGES[-1],) * len(moments)
    without = replace(alone.weights, feature_ridges=ridges, mixing=0.0)
    best = Chosen(model_of(without), without, alone.validation)
    current = replace(without, mixing=1.0)
    for silo in range(len(moments)):
        tried = (
            replace(
                current,
                feature_ridges=(*current.feature_ridges[:silo], ridge, *current.feature_ridges[silo + 1 :]),
                mixing=mixing,
            )
            for ridge, mixing in product(FEATURE_RIDGES, MIXINGS)
        )
        found = max((_judged(users, model_of(weights), features) for weights in tried), key=_validation)
        current = found.weights
        best = max(best, found, key=_validation)
    return best


def rankings(
    users: LabelUsers, chosen: npt.NDArray[np.int64], model: JointModel, features: Sequence[Matrix]
) -> Rankings:
    """Rank the unseen items of some users with a joint model."""
    rows = users.rows[chosen]
    return rank_scores(
        model.scores(rows, [of_silo[chosen] for of_silo in features]), rows, users.held_out[chosen]
    )


def popularity_rankings(users: LabelUsers, chosen: npt.NDArray[np.int64]) -> Rankings:
    """Rank the unseen items of some users by how many have them."""
    rows = users.rows[chosen]
    counts = np.asarray(users.rows.sum(axis=0), dtype=np.float64).ravel()
    return rank_scores(np.tile(counts, (chosen.size, 1)), rows, users.held_out[chosen])


def _judged(users: LabelUsers, model: JointModel, features: Sequence[Matrix]) -> Chosen:
    metrics = per_user_metrics(rankings(users, users.validation, model, features))
    return Chosen(model, model.weights, float(np.mean(metrics[METRIC])))


def _validation(chosen: Chosen) -> float:
    return chosen.validation
