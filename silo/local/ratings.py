"""What a person would rate an item: their habit, the item's, and what they thought of its neighbours.

``r̂ = μ + b_i + b_u + Σ_j s_ij (r_uj - μ - b_j - b_u) / (λ + Σ_j |s_ij|)``: the baseline and the item-item
neighbourhood of Koren, "Factor in the Neighbors" (ACM TKDD 2010), with similarities of the silo's own item
neighbours. Exact, made when it is asked for, and kept nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.data.ratings import Ratings

ITEM_SHRINKAGE: Final = 25.0
USER_SHRINKAGE: Final = 10.0
"""Ratings that speak for the mean where an item or a person has few: Koren's values."""
NEIGHBOUR_SHRINKAGE: Final = 1.0
"""Summed similarity that speaks for the baseline."""

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RatingBaseline:
    """Mean, items' and people's deviations from it.

    Attributes:
        mean: of all ratings.
        of_items: (items,) float64; 0 for an item nobody rated.
        of_users: by external id; somebody unknown has 0.
    """

    mean: float
    of_items: Values
    of_users: dict[str, float]

    @classmethod
    def fit(cls, ratings: Ratings, num_items: int) -> RatingBaseline:
        """Shrunken means, items first, then people by what the items leave over."""
        mean = float(ratings.values.mean())
        of_items = _shrunken(ratings.items, ratings.values - mean, num_items, ITEM_SHRINKAGE)
        names, users = np.unique(ratings.user_ids, return_inverse=True)
        left_over = ratings.values - mean - of_items[ratings.items]
        of_users = _shrunken(users, left_over, len(names), USER_SHRINKAGE)
        return cls(mean, of_items, dict(zip(names.tolist(), of_users.tolist(), strict=True)))

    def predict(self, pairs: Ratings) -> Values:
        """A rating for each pair; their own values are not looked at."""
        of_users = np.array([self.of_users.get(str(user), 0.0) for user in pairs.user_ids])
        predicted: Values = self.mean + self.of_items[pairs.items] + of_users
        return predicted


@dataclass(frozen=True, eq=False)
class NeighbourRatings:
    """The baseline, moved by what the person thought of the item's neighbours.

    Attributes:
        baseline: of the same ratings.
        similarities: items × items, as ``silo.local.models.nearest_items`` gives them.
        train: ratings that people are known by.
    """

    baseline: RatingBaseline
    similarities: sp.csr_matrix
    train: Ratings

    def predict(self, pairs: Ratings) -> Values:
        """A rating for each pair; their own values are not looked at."""
        names, users = np.unique(np.concatenate([self.train.user_ids, pairs.user_ids]), return_inverse=True)
        shape = (len(names), self.similarities.shape[0])
        rows, columns = users[: len(self.train)], self.train.items
        left_over = self.train.values - self.baseline.predict(self.train)
        moved = sp.csr_matrix((left_over, (rows, columns)), shape=shape)
        known = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
        predicted = self.baseline.predict(pairs)
        asked, places = np.unique(users[len(self.train) :], return_inverse=True)
        weights = self.similarities.astype(np.float64)
        for first in range(0, len(asked), _USERS_AT_ONCE):
            people = asked[first : first + _USERS_AT_ONCE]
            mine = (places >= first) & (places < first + len(people))
            at = places[mine] - first, pairs.items[mine]
            numerator = np.asarray((moved[people] @ weights).toarray())[at]
            denominator = np.asarray((known[people] @ weights).toarray())[at]
            predicted[mine] += numerator / (denominator + NEIGHBOUR_SHRINKAGE)
        return predicted


_USERS_AT_ONCE: Final = 512


def _shrunken(groups: NDArray[np.int64], values: Values, count: int, shrinkage: float) -> Values:
    sums = np.bincount(groups, weights=values, minlength=count)
    shrunken: Values = sums / (np.bincount(groups, minlength=count) + shrinkage)
    return shrunken
