"""Rows to interactions, by rules that look at one person at a time.

Every rule uses constants of the plan or the policy and that person's rows only, so adding or removing one
person changes nobody else's rows and cleaning costs no privacy. Whatever is wrong with single rows or users,
``clean`` can go on without them: an error at the time of a contribution would be seen by all members, and one
person could cause it. The report counts what was left out; it stays with the silo's own administrator.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import polars as pl
from pydantic import BaseModel, ConfigDict

from privacy.errors import DataError, UsageError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.data.ordering import pair_hashes

_OPTIONAL: Final = {"timestamp": pl.Int64, "weight": pl.Float64, "rating": pl.Float64}


class OutsideCatalogueError(DataError):
    """Rows name items that the public item list does not hold."""

    code = "outside_catalogue"


class TooManyUsersError(DataError):
    """More users than the plan's public bound."""

    code = "too_many_users"


class CleaningReport(BaseModel):
    """What cleaning changed, in rows unless it says users. For the silo's administrator only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    unusable_rows: int
    excluded_users: int
    excluded_rows: int
    unmatched_exclusions: int
    outside_rows: int
    impossible_times: int
    non_positive_weights: int
    duplicates: int
    low_ratings: int
    users_over_cap: int
    rows_over_cap: int
    users: int
    interactions: int
    users_above_bound: int

    def lines(self) -> tuple[str, ...]:
        """The report in words: what was read, each thing that was dropped, what remains."""
        dropped = {
            "rows without a usable id, or with a weight or rating that is no number": self.unusable_rows,
            f"rows of people who opted out ({self.excluded_users:,} people)": self.excluded_rows,
            "rows of items outside the catalogue": self.outside_rows,
            "rows with an impossible time": self.impossible_times,
            "rows with a weight of zero or less, or of uncounted events": self.non_positive_weights,
            "repeated (user, item) pairs": self.duplicates,
            "pairs rated lower than min_rating": self.low_ratings,
            f"rows above the cap of one user's history ({self.users_over_cap:,} users)": self.rows_over_cap,
        }
        return (
            f"{self.rows:,} rows read",
            *(f"{count:,} left out: {what}" for what, count in dropped.items() if count),
            f"{self.interactions:,} interactions of {self.users:,} users remain",
        )

    def warnings(self) -> tuple[str, ...]:
        """What somebody should look into although the rows can be used."""
        found = []
        if self.unmatched_exclusions:
            found.append(
                f"{self.unmatched_exclusions:,} ids of people who opted out stand in no row: nobody is left "
                "out for them. Compare how the list and the tables write ids."
            )
        if self.users_above_bound:
            found.append(
                f"{self.users_above_bound:,} users more than the plan's max_users_per_silo: sums are cut off "
                "at the bound it allows for. Propose a plan with a larger one."
            )
        return tuple(found)


def refuse_outside(item_ids: pl.Series, catalogue: Catalogue, *, where: str | None = None) -> None:
    """Refuse rows whose item is not in ``catalogue``; names items, which are public, never users.

    Raises:
        OutsideCatalogueError: with their number and the first few item ids.
    """
    outside = item_ids.filter(~item_ids.is_in(list(catalogue.item_ids)))
    if outside.is_empty():
        return
    names = outside.unique().sort()
    few = ", ".join(f"'{name}'" for name in names.head(5)) + (", …" if len(names) > 5 else "")
    raise OutsideCatalogueError(
        f"{len(names):,} items outside the catalogue ({len(outside):,} rows): {few}",
        where=where,
        remedy="Add them to the item file and make the catalogue anew, or remove these rows.",
    )


def clean(
    rows: pl.DataFrame,
    catalogue: Catalogue,
    *,
    max_interactions_per_user: int,
    max_users: int | None = None,
    exclude_users: Collection[str] = (),
    min_rating: float | None = None,
    strict: bool = True,
) -> tuple[Interactions, CleaningReport]:
    """Make interactions of a dataset's rows, by :func:`clean_rows`.

    More users than ``max_users`` are counted and stay, all of them: choosing some would make one person's
    place depend on the others, refusing would show the members that there is one too many, and the sum is
    clamped to its public range anyway.

    Args:
        rows: as :func:`clean_rows`.
        catalogue: the plan's public list.
        max_interactions_per_user: the smaller cap of plan and policy.
        max_users: the plan's ``max_users_per_silo``; ``None`` sets no bound.
        exclude_users: as :func:`clean_rows`.
        min_rating: as :func:`clean_rows`.
        strict: refuse items outside the catalogue instead of leaving their rows out: for a person at the
            keyboard and for public sets, never for a contribution.

    Returns:
        Interactions, users in the order of their ids, and the report for the local administrator.

    Raises:
        UsageError: a cap below one.
        OutsideCatalogueError: if ``strict``, an item is not in the catalogue.
    """
    kept, report = clean_rows(
        rows,
        catalogue,
        max_interactions_per_user=max_interactions_per_user,
        exclude_users=exclude_users,
        min_rating=min_rating,
        strict=strict,
    )
    above = 0 if max_users is None else max(0, report.users - max_users)
    return _indexed(kept, catalogue), report.model_copy(update={"users_above_bound": above})


def clean_rows(
    rows: pl.DataFrame,
    catalogue: Catalogue | None,
    *,
    max_interactions_per_user: int | None,
    exclude_users: Collection[str] = (),
    min_rating: float | None = None,
    strict: bool = True,
) -> tuple[pl.DataFrame, CleaningReport]:
    """Leave out what no plan can use; every rule looks at one row, or at one person's rows.

    In this order: rows without an id or with a weight or rating that is no number, of people who opted out,
    of items outside the catalogue, with an impossible time (negative, NaN, in no calendar) or with a weight
    of zero or less are left out; a repeated pair becomes one row of its latest time, its largest weight and
    its latest rating, for which rows left out for their weight count too; if that rating is below
    ``min_rating`` it is left out; of a longer history than the cap the most recent rows stay, rows without a
    time counting as the oldest and ties decided by a hash of user and item.

    Args:
        rows: as ``silo.data.sources.read_dataset`` gives them: ``user_id``, ``item_id``, and ``timestamp``,
            ``weight``, ``rating``, ``event`` where there are any.
        catalogue: the public list; ``None`` keeps rows of every item.
        max_interactions_per_user: the cap; ``None`` keeps whole histories.
        exclude_users: canonical ids of people who said no, as ``read_exclusions`` gives them.
        min_rating: the lowest rating that is an interaction; pairs without a rating are interactions.
        strict: as ``clean``.

    Returns:
        ``user_id``, ``item_id``, ``timestamp``, ``weight`` and ``rating``, each pair once; and the report.

    Raises:
        UsageError, OutsideCatalogueError: as ``clean``.
    """
    if max_interactions_per_user is not None and max_interactions_per_user < 1:
        raise UsageError(
            f"a cap of {max_interactions_per_user} interactions leaves nothing",
            where="max_interactions_per_user",
            remedy="Set it to 1 or more.",
        )
    usable = _usable(_with_all_columns(rows))
    excluded = usable["user_id"].is_in(list(exclude_users))
    kept = usable.filter(~excluded)
    if strict and catalogue is not None:
        refuse_outside(kept["item_id"], catalogue)
    inside = kept if catalogue is None else kept.filter(kept["item_id"].is_in(list(catalogue.item_ids)))
    timed = inside.filter((pl.col("timestamp") >= 0).fill_null(True))
    weighed = timed.filter((pl.col("weight") > 0).fill_null(True))
    once = _each_pair_once(weighed)
    if weighed.height < timed.height:
        once = _with_latest_ratings(once, timed)
    liked = once if min_rating is None else once.filter((pl.col("rating") >= min_rating).fill_null(True))
    lengths = liked["user_id"].value_counts()["count"]
    cap = max_interactions_per_user
    capped = liked if cap is None else _capped(liked, cap)
    excluded_users = usable.filter(excluded)["user_id"].n_unique()
    report = CleaningReport(
        rows=rows.height,
        unusable_rows=rows.height - usable.height,
        excluded_users=excluded_users,
        excluded_rows=usable.height - kept.height,
        unmatched_exclusions=len(set(exclude_users)) - excluded_users,
        outside_rows=kept.height - inside.height,
        impossible_times=inside.height - timed.height,
        non_positive_weights=timed.height - weighed.height,
        duplicates=weighed.height - once.height,
        low_ratings=once.height - liked.height,
        users_over_cap=0 if cap is None else int((lengths > cap).sum()),
        rows_over_cap=liked.height - capped.height,
        users=len(lengths),
        interactions=capped.height,
        users_above_bound=0,
    )
    return capped, report


def _with_all_columns(rows: pl.DataFrame) -> pl.DataFrame:
    absent = [pl.lit(None, kind).alias(name) for name, kind in _OPTIONAL.items() if name not in rows.columns]
    return rows.with_columns(absent).select("user_id", "item_id", *_OPTIONAL)


def _usable(rows: pl.DataFrame) -> pl.DataFrame:
    named = rows.drop_nulls(["user_id", "item_id"])
    # Interactions keep weights as 32-bit numbers: what is infinite there is none.
    numbers = (pl.col("rating"), pl.col("weight").cast(pl.Float32))
    return named.filter(pl.all_horizontal(number.is_finite().fill_null(True) for number in numbers))


def _each_pair_once(rows: pl.DataFrame) -> pl.DataFrame:
    pair = ["user_id", "item_id"]
    ordered = rows.sort("timestamp", nulls_last=False, maintain_order=True)
    latest = ordered.unique(pair, keep="last", maintain_order=True)
    if latest.height == rows.height or (
        rows["weight"].null_count() == rows["rating"].null_count() == rows.height
    ):
        return latest
    summed_up = ordered.group_by(pair).agg(
        pl.when(pl.col("weight").is_not_null().any()).then(pl.col("weight").fill_null(1.0).max()),
        pl.col("rating").drop_nulls().last(),
    )
    return latest.drop("weight", "rating").join(summed_up, on=pair, how="left", maintain_order="left")


def _with_latest_ratings(once: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """What somebody thought last counts, also where it stands in a row that is no interaction itself."""
    pair = ["user_id", "item_id"]
    rated = rows.drop_nulls("rating").sort("timestamp", nulls_last=False, maintain_order=True)
    ratings = rated.unique(pair, keep="last", maintain_order=True).select(*pair, "rating")
    return once.drop("rating").join(ratings, on=pair, how="left", maintain_order="left")


def _capped(rows: pl.DataFrame, cap: int) -> pl.DataFrame:
    order = pl.Series("order", pair_hashes(rows["user_id"], rows["item_id"], key="cap"))
    ranked = rows.with_columns(order).sort(
        ["timestamp", "order"], descending=[True, False], nulls_last=[True, False]
    )
    return ranked.filter(pl.int_range(pl.len()).over("user_id") < cap).drop("order")


def _indexed(rows: pl.DataFrame, catalogue: Catalogue) -> Interactions:
    users = rows["user_id"].unique().sort()
    frame = pl.DataFrame(
        {
            "user_index": users.search_sorted(rows["user_id"]),
            "item_index": _index_of(rows["item_id"], catalogue),
            "timestamp": rows["timestamp"],
            "weight": rows["weight"].fill_null(1.0),
        }
    )
    return Interactions(tuple(users.to_list()), frame, catalogue)


def _index_of(item_ids: pl.Series, catalogue: Catalogue) -> pl.Series:
    table = pl.DataFrame({"item_id": catalogue.item_ids}, schema={"item_id": pl.String}).with_row_index(
        "index"
    )
    joined = item_ids.alias("item_id").to_frame().join(table, on="item_id", how="left", maintain_order="left")
    return joined["index"]
