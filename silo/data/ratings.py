"""Who rated what how, split so that no model of the silo has learnt what it is measured on.

Interactions are what models learn from; ratings say what people thought, also of what they disliked, which
is no interaction at all. A rated pair that is an interaction stays on the side where the plan's holdout put
it. The others no model has seen: a hash of the pair decides, as many as the plan holds out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from policies.plans.plan import Plan
from policies.silo_policy import Dataset
from silo.data.catalogue import Catalogue
from silo.data.cleaning import clean_rows
from silo.data.interactions import Interactions
from silo.data.ordering import pair_hashes
from silo.data.sources import read_dataset
from silo.rows import Rows, who_said_no

_FRACTION_OF_LAST: Final = 0.2
"""Share of the unseen pairs that is held out where the plan holds out last rows."""
_LIKED_SHARE: Final = 0.75


@dataclass(frozen=True, eq=False)
class Ratings:
    """Rated pairs, each once.

    Attributes:
        user_ids: external id of each pair's user.
        items: (pairs,) int64 indices of the catalogue.
        values: (pairs,) float64, as the silo's table has them.
    """

    user_ids: npt.NDArray[np.str_]
    items: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def of_users(self, user_ids: tuple[str, ...]) -> Ratings:
        """Those of some users."""
        kept = np.isin(self.user_ids, np.array(user_ids, dtype=np.str_))
        return Ratings(self.user_ids[kept], self.items[kept], self.values[kept])


@dataclass(frozen=True)
class RatedRows:
    """The ratings of one silo under one plan.

    Attributes:
        train: what a rating predictor may learn from.
        held_out: the rest.
        liked_from: the lowest rating of what counts as liked.
    """

    train: Ratings
    held_out: Ratings
    liked_from: float


def load_ratings(directory: Path, plan: Plan, dataset: Dataset, rows: Rows) -> RatedRows | None:
    """Read the ratings beside the interactions of ``rows``.

    Args:
        directory: the silo's.
        plan: for its holdout.
        dataset: from the policy.
        rows: as ``load_rows`` gives them for the same plan and dataset.

    Returns:
        None where the policy names no column of ratings, or where nothing is held out of either side.
    """
    if dataset.columns.rating is None:
        return None
    table = read_dataset(dataset, directory, rows.catalogue, strict=False)
    rated, _ = clean_rows(
        table,
        rows.catalogue,
        max_interactions_per_user=None,
        exclude_users=who_said_no(directory, plan, dataset, table),
        strict=False,
    )
    rated = rated.drop_nulls("rating")
    pairs = pl.concat([_pairs(rows.train, is_held=False), _pairs(rows.held_out, is_held=True)])
    joined = rated.join(pairs, on=["user_id", "item_id"], how="left", maintain_order="left")
    by_hash = _chosen_by_hash(joined, plan)
    is_held = joined["is_held"].fill_null(pl.Series(by_hash)).to_numpy()
    train, held_out = (_ratings(joined.filter(side), rows.catalogue) for side in (~is_held, is_held))
    if not len(train) or not len(held_out):
        return None
    liked = liked_from(train.values) if dataset.min_rating is None else dataset.min_rating
    return RatedRows(train, held_out, liked)


def liked_from(values: npt.NDArray[np.float64]) -> float:
    """Four of five stars and the like: three quarters of the way up from the lowest, on a half step."""
    low, high = float(values.min()), float(values.max())
    return round(2 * (low + _LIKED_SHARE * (high - low))) / 2


def _pairs(interactions: Interactions, *, is_held: bool) -> pl.DataFrame:
    users = pl.Series(interactions.user_ids, dtype=pl.String)
    items = pl.Series(interactions.catalogue.item_ids, dtype=pl.String)
    frame = interactions.frame
    return pl.DataFrame(
        {
            "user_id": users.gather(frame["user_index"]),
            "item_id": items.gather(frame["item_index"]),
            "is_held": np.full(frame.height, is_held),
        }
    )


def _chosen_by_hash(rows: pl.DataFrame, plan: Plan) -> npt.NDArray[np.bool_]:
    holdout = plan.holdout
    fraction = holdout.fraction if holdout.kind == "random" else _FRACTION_OF_LAST
    hashes = pair_hashes(rows["user_id"], rows["item_id"], key=f"ratings/{holdout.seed}")
    chosen: npt.NDArray[np.bool_] = hashes < np.uint64(fraction * 2.0**64)
    return chosen


def _ratings(rows: pl.DataFrame, catalogue: Catalogue) -> Ratings:
    index = pl.DataFrame({"item_id": catalogue.item_ids}).with_row_index("item")
    items = rows.join(index, on="item_id", how="left", maintain_order="left")["item"]
    return Ratings(
        rows["user_id"].to_numpy().astype(np.str_),
        items.to_numpy().astype(np.int64),
        rows["rating"].to_numpy().astype(np.float64),
    )
