"""One place of a list for an item that nobody here has yet: no model of interactions would ever show it.

Which one is decided by public attributes: the cosine between an item's and the mean of those in the person's
history. Attributes tie often, so a hash of person and item decides among equals: people alike get to see
different new items, each person always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.data.ordering import pair_hashes

MIN_LIST: Final = 10
"""Shorter lists have no place to give away."""


def new_item(
    catalogue: Catalogue,
    interactions: Interactions,
    user_id: str,
    ranked: Sequence[int],
    *,
    liked: Interactions | None = None,
) -> int | None:
    """The item that takes the last place of a person's list.

    Args:
        catalogue: with public attributes.
        interactions: all of this silo's; an item in none of them is new.
        user_id: whose list.
        ranked: item indices of the list as it is.
        liked: what of ``interactions`` says what the person likes; None: all of it.

    Returns:
        Its index; None where the list is shorter than ``MIN_LIST`` or has a new item already, where the
        person has no history to go by, or where no new item shares an attribute with it.
    """
    history = (interactions if liked is None else liked).of(user_id)
    is_new = np.ones(len(catalogue), dtype=np.bool_)
    is_new[interactions.frame["item_index"].to_numpy()] = False
    if len(ranked) < MIN_LIST or not history.size or is_new[list(ranked)].any():
        return None
    similarity = _similarity(catalogue.features(), history)
    similarity[~is_new] = 0.0
    if not similarity.any():
        return None
    best = np.flatnonzero(similarity >= similarity.max() * (1.0 - 1e-9))
    items = pl.Series("item_id", [catalogue.item_ids[item] for item in best], dtype=pl.String)
    users = pl.Series("user_id", [user_id] * best.size, dtype=pl.String)
    return int(best[int(np.argmin(pair_hashes(users, items, key="cold-start")))])


def _similarity(features: NDArray[np.float64], history: NDArray[np.int64]) -> NDArray[np.float64]:
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    unit = features / lengths
    similarity: NDArray[np.float64] = unit @ unit[history].mean(axis=0)
    return similarity
