"""A weighted sum of several models' scores, each standardised per user; the weights come from held-out rows.

Weights are chosen on half of the users with held-out rows and measured on the other half. Which half a
person is in is a hash of their id: nobody's rows move anybody, and the weights are a function of the
validation half's held-out rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.data.interactions import Interactions
from silo.data.ordering import pair_hashes
from silo.evaluation import NothingToEvaluateError, Scorer, aligned_rows, per_user_metrics, rank_scores
from silo.local.models import RankingModel

METRIC: Final = "ndcg@20"
"""What weights are chosen by."""
NUM_STEPS: Final = 20
MAX_VALIDATION_USERS: Final = 1000
"""Scores of so many users are held at once for each model."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Weighted sum of standardised scores.

    Attributes:
        models: by name, all of one catalogue.
        weights: by the same names, not negative.
        is_fallback: never: each model decides for itself what it gives to whom.
    """

    models: Mapping[str, RankingModel]
    weights: Mapping[str, float]
    is_fallback: bool = False

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return next(iter(self.models.values())).num_items

    def scores(self, histories: sp.csr_matrix) -> NDArray[np.float64]:
        """Blend: users × items in, users × items float64 out."""
        total = np.zeros(histories.shape)
        for name, model in self.models.items():
            if self.weights[name] > 0:
                total += self.weights[name] * standardised(model.scores(histories), histories)
        return total


def standardised(scores: NDArray[np.floating], histories: sp.csr_matrix) -> NDArray[np.float64]:
    """z-scores of each user over the items that are not in their history.

    Args:
        scores: users × items, finite.
        histories: users × items, what is seen.

    Returns:
        users × items; zeros for a user whose unseen items all score the same.
    """
    is_open = np.ones(scores.shape, dtype=np.bool_)
    is_open[histories.nonzero()] = False
    count = np.maximum(is_open.sum(axis=1, keepdims=True), 1)
    mean = np.where(is_open, scores, 0.0).sum(axis=1, keepdims=True, dtype=np.float64) / count
    centred = scores - mean
    std = np.sqrt((np.where(is_open, centred, 0.0) ** 2).sum(axis=1, keepdims=True) / count)
    # Scores in float32 that are equal leave a rounding error as their spread.
    is_flat = std <= 1e-6 * np.abs(mean)
    return np.where(is_flat, 0.0, centred / np.where(is_flat, 1.0, std))


def halves(held_out: Interactions) -> tuple[Interactions, Interactions]:
    """(validation, test): held-out rows of two disjoint sets of users, each by a hash of their ids.

    Args:
        held_out: held-out rows; users without any are in neither.

    Raises:
        NothingToEvaluateError: one of the two would be empty.
    """
    users = np.unique(held_out.frame["user_index"].to_numpy())
    ids = pl.Series("user_id", [held_out.user_ids[user] for user in users], dtype=pl.String)
    hashes = pair_hashes(ids, pl.Series("item_id", [""] * users.size, dtype=pl.String), key="fusion/halves")
    is_validation = hashes % np.uint64(2) == 0
    if not is_validation.any() or is_validation.all():
        raise NothingToEvaluateError(
            f"{users.size} users with held-out rows make no two halves",
            remedy="hold out rows of more users",
        )
    order = np.argsort(hashes, kind="stable")
    validation = users[order[is_validation[order]]][:MAX_VALIDATION_USERS]
    return held_out.select(validation), held_out.select(users[~is_validation])


def choose_weights(
    models: Mapping[str, Scorer], train: Interactions, validation: Interactions
) -> dict[str, float]:
    """Choose weights by forward selection with replacement (Caruana et al., ICML 2004).

    Starts from the best single model and adds, ``NUM_STEPS`` times, the one that helps ``METRIC`` most; the
    best sum on the way is taken, so on these users the blend is never worse than the best single model.

    Args:
        models: by name.
        train: rows that the users are known by.
        validation: held-out rows of at most ``MAX_VALIDATION_USERS`` users; no others are looked at.

    Returns:
        A weight for each name, not negative, sum 1.
    """
    seen, relevant = aligned_rows(train, validation)
    tables = [standardised(model.scores(seen), seen) for model in models.values()]
    counts, total = np.zeros(len(tables)), np.zeros(seen.shape)
    best_value, best_counts = -np.inf, counts
    for _ in range(NUM_STEPS):
        values = [_quality(total + table, seen, relevant) for table in tables]
        chosen = int(np.argmax(values))
        total += tables[chosen]
        counts[chosen] += 1
        if values[chosen] > best_value:
            best_value, best_counts = values[chosen], counts.copy()
    weights = best_counts / best_counts.sum()
    return {name: float(weight) for name, weight in zip(models, weights, strict=True)}


def _quality(scores: NDArray[np.float64], seen: sp.csr_matrix, relevant: sp.csr_matrix) -> float:
    return float(np.mean(per_user_metrics(rank_scores(scores, seen, relevant))[METRIC]))
