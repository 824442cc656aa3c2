"""Recommendations for one user, on external ids.

A user the silo does not know, or one without a history, gets the popularity list, marked as such; so does
everybody when the model itself fell back. Items the user has seen are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.models.recommender import Recommender

Fallback = Literal["unknown-user", "model"]


@dataclass(frozen=True)
class Recommendation:
    """One row of a list.

    Attributes:
        user_id: as the caller wrote it.
        item_id: as in the catalogue.
        title: as in the catalogue.
        score: larger is better; comparable within one list only.
        rank: 1 for the first.
    """

    user_id: str
    item_id: str
    title: str
    score: float
    rank: int


@dataclass(frozen=True)
class RecommendationList:
    """The best unseen items of one user.

    Attributes:
        rows: by rank; fewer than asked for when the user has seen nearly everything.
        fallback: why this is the popularity list: ``unknown-user`` (no history here), ``model`` (its family
            found popularity no worse), or None (it is personal).
    """

    rows: tuple[Recommendation, ...]
    fallback: Fallback | None

    @property
    def is_fallback(self) -> bool:
        """Whether this is the popularity list."""
        return self.fallback is not None


def recommend(
    model: Recommender, catalogue: Catalogue, interactions: Interactions, user_id: str, k: int
) -> RecommendationList:
    """Rank the items ``user_id`` has not seen.

    Args:
        model: a trained model.
        catalogue: the catalogue it was trained on.
        interactions: this silo's users.
        user_id: external id; may be unknown.
        k: length of the list, at least 1.

    Returns:
        At most ``k`` rows; equal scores are ordered by ``item_id``, so the same input gives the same list.

    Raises:
        UsageError: ``k`` below 1, or a model of another catalogue.
    """
    if k < 1:
        raise UsageError(f"a list of {k} items cannot be made", where="k", remedy="ask for at least 1")
    if model.num_items != len(catalogue) or interactions.num_items != len(catalogue):
        raise UsageError(
            f"model, interactions and catalogue have {model.num_items}, {interactions.num_items} and "
            f"{len(catalogue)} items",
            remedy="use the catalogue named in the plan that trained the model",
        )
    seen = interactions.of(user_id)
    history = sp.csr_matrix(
        (np.ones(len(seen)), seen, np.array([0, len(seen)])), shape=(1, len(catalogue)), dtype=np.float64
    )
    scores = model.scores(history)[0]
    fallback: Fallback | None = "model" if model.is_fallback else None
    rows = tuple(
        Recommendation(
            user_id, catalogue.items[item].item_id, catalogue.items[item].title, float(scores[item]), rank
        )
        for rank, item in enumerate(best_unseen(scores, seen, k), 1)
    )
    return RecommendationList(rows, "unknown-user" if not len(seen) else fallback)


def best_unseen(scores: NDArray[np.floating], seen: NDArray[np.int64], k: int) -> list[int]:
    """Indices of the ``k`` best items outside ``seen``; ties go to the lower index."""
    is_open = np.ones(len(scores), dtype=np.bool_)
    is_open[seen] = False
    candidates = np.flatnonzero(is_open)
    # A stable sort of ascending indices settles ties.
    order = np.argsort(-scores[candidates], kind="stable")[:k]
    return [int(item) for item in candidates[order]]
