"""Recommendations for one user, on external ids.

A user the silo does not know, or one without a history, gets the popularity list, marked as such; so does
everybody when the model itself fell back. Items the user has seen are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.local.cold_start import new_item
from silo.local.models import RankingModel

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
        new_item: the item that was given the last place because nobody here has it yet, or None.
    """

    rows: tuple[Recommendation, ...]
    fallback: Fallback | None
    new_item: str | None = None

    @property
    def is_fallback(self) -> bool:
        """Whether this is the popularity list."""
        return self.fallback is not None


def recommend(
    model: RankingModel,
    catalogue: Catalogue,
    interactions: Interactions,
    user_id: str,
    k: int,
    *,
    reserve: bool = False,
    liked: Interactions | None = None,
) -> RecommendationList:
    """Rank the items ``user_id`` has not seen.

    Args:
        model: a trained model, or a blend of several.
        catalogue: the catalogue it was trained on.
        interactions: this silo's users; what they have is not shown to them again.
        user_id: external id; may be unknown.
        k: length of the list, at least 1.
        reserve: give the last place to a new item where there is a fitting one
            (:mod:`silo.local.cold_start`).
        liked: what of ``interactions`` is scored, as models learn from nothing else; None: all of it.

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
    scored = interactions if liked is None else liked
    scores = model.scores(scored.history(user_id))[0]
    fallback: Fallback | None = "model" if model.is_fallback else None
    items = best_unseen(scores, seen, k)
    new = new_item(catalogue, interactions, user_id, items, liked=liked) if reserve else None
    if new is not None:
        items[-1] = new
    rows = tuple(
        Recommendation(
            user_id, catalogue.items[item].item_id, catalogue.items[item].title, float(scores[item]), rank
        )
        for rank, item in enumerate(items, 1)
    )
    shown = None if new is None else catalogue.item_ids[new]
    return RecommendationList(rows, "unknown-user" if not len(seen) else fallback, shown)


def best_unseen(scores: NDArray[np.floating], seen: NDArray[np.int64], k: int) -> list[int]:
    """Indices of the ``k`` best items outside ``seen``; ties go to the lower index."""
    is_open = np.ones(len(scores), dtype=np.bool_)
    is_open[seen] = False
    candidates = np.flatnonzero(is_open)
    # A stable sort of ascending indices settles ties.
    order = np.argsort(-scores[candidates], kind="stable")[:k]
    return [int(item) for item in candidates[order]]
