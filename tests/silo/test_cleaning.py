from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import CleaningReport, OutsideCatalogueError, clean
from silo.data.interactions import Interactions
from silo.data.tables import IMPOSSIBLE_TIME

CATALOGUE = Catalogue.from_items(CatalogueItem(item_id=f"i{number:04d}") for number in range(1000))
SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "weight": pl.Float64}

Row = tuple[str, str, int | None, float | None]


def rows(*given_rows: Row) -> pl.DataFrame:
    return pl.DataFrame(list(given_rows), schema=SCHEMA, orient="row")


def history(interactions: Interactions, user_id: str) -> set[str]:
    return {CATALOGUE.item_ids[index] for index in interactions.of(user_id)}


def test_what_one_person_left_in_bad_order_is_put_right_and_counted() -> None:
    table = rows(
        ("ann", "i0001", 10, None),
        ("ann", "i0001", 30, None),
        ("ann", "i0002", 20, 1.0),
        ("ann", "i0003", IMPOSSIBLE_TIME, None),
        ("bob", "i0001", None, 0.0),
        ("bob", "i0002", None, 2.0),
        ("eve", "i0009", 5, None),
    )
    interactions, report = clean(table, CATALOGUE, max_interactions_per_user=9, exclude_users={"eve", "zoe"})
    assert interactions.user_ids == ("ann", "bob")
    assert history(interactions, "ann") == {"i0001", "i0002"}
    assert interactions.frame["timestamp"].to_list() == [30, 20, None]
    assert report == CleaningReport(
        rows=7,
        unusable_rows=0,
        excluded_users=1,
        excluded_rows=1,
        unmatched_exclusions=1,
        outside_rows=0,
        impossible_times=1,
        non_positive_weights=1,
        duplicates=1,
        low_ratings=0,
        users_over_cap=0,
        rows_over_cap=0,
        users=2,
        interactions=3,
        users_above_bound=0,
    )
    assert report.lines()[0] == "7 rows read"
    assert report.lines()[-1] == "3 interactions of 2 users remain"


def test_a_user_with_100000_events_is_capped_to_the_most_recent() -> None:
    busy = pl.DataFrame(
        {
            "user_id": ["busy"] * 100_000,
            "item_id": [CATALOGUE.item_ids[number % 1000] for number in range(100_000)],
            "timestamp": list(range(100_000)),
        }
    )
    interactions, report = clean(busy, CATALOGUE, max_interactions_per_user=200)
    assert history(interactions, "busy") == set(CATALOGUE.item_ids[800:])
    assert (report.duplicates, report.users_over_cap, report.rows_over_cap) == (99_000, 1, 800)


def test_without_times_the_cap_keeps_the_same_rows_whoever_else_is_there() -> None:
    ann = rows(*(("ann", f"i{number:04d}", None, None) for number in range(50)))
    bob = rows(*(("bob", f"i{number:04d}", None, None) for number in range(50)))
    alone, _ = clean(ann, CATALOGUE, max_interactions_per_user=7)
    shuffled = pl.concat([bob, ann]).sample(fraction=1.0, shuffle=True, seed=1)
    together, _ = clean(shuffled, CATALOGUE, max_interactions_per_user=7)
    assert history(alone, "ann") == history(together, "ann")
    assert history(together, "ann") != history(together, "bob")
    assert len(history(together, "bob")) == 7


def test_rows_without_a_time_count_as_the_oldest() -> None:
    table = rows(("ann", "i0001", None, None), ("ann", "i0002", 0, None), ("ann", "i0003", 9, None))
    interactions, _ = clean(table, CATALOGUE, max_interactions_per_user=2)
    assert history(interactions, "ann") == {"i0002", "i0003"}


def test_items_outside_the_catalogue_are_named_users_never() -> None:
    table = rows(*(("secret-user", f"x{number}", None, None) for number in range(7)))
    with pytest.raises(OutsideCatalogueError, match=r"7 items .* \(7 rows\): 'x0', .* …") as caught:
        clean(table, CATALOGUE, max_interactions_per_user=9)
    assert "secret-user" not in str(caught.value)
    assert caught.value.remedy


def test_more_users_than_the_public_bound_all_stay_and_are_counted() -> None:
    table = rows(*((f"u{number}", "i0001", None, None) for number in range(37)))
    _, report = clean(table, CATALOGUE, max_interactions_per_user=9, max_users=37)
    assert (report.users_above_bound, report.warnings()) == (0, ())
    interactions, report = clean(table, CATALOGUE, max_interactions_per_user=9, max_users=30)
    assert (interactions.num_users, report.users_above_bound) == (37, 7)
    assert report.warnings()[0].startswith("7 users more than the plan's max_users_per_silo")


def test_rows_that_cannot_count_are_left_out_of_a_contribution_one_by_one() -> None:
    table = pl.DataFrame(
        [
            ("ann", "i0001", 1, None),
            ("ann", "zebra", 2, None),
            (None, "i0002", 3, None),
            ("bob", None, 4, None),
            ("cid", "i0003", 5, float("nan")),
        ],
        schema=SCHEMA,
        orient="row",
    )
    interactions, report = clean(table, CATALOGUE, max_interactions_per_user=9, strict=False)
    assert interactions.user_ids == ("ann",)
    assert history(interactions, "ann") == {"i0001"}
    assert (report.unusable_rows, report.outside_rows) == (3, 1)
    assert "1 left out: rows of items outside the catalogue" in report.lines()


def test_a_no_that_matches_nobody_is_a_warning() -> None:
    table = rows(("ann", "i0001", 1, None))
    _, report = clean(table, CATALOGUE, max_interactions_per_user=5, exclude_users=["ann", "x", "y"])
    assert report.unmatched_exclusions == 2
    assert report.warnings()[0].startswith("2 ids of people who opted out stand in no row")


def test_a_cap_of_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="max_interactions_per_user"):
        clean(rows(), CATALOGUE, max_interactions_per_user=0)


def test_if_everybody_opted_out_nobody_remains() -> None:
    interactions, report = clean(
        rows(("ann", "i0001", 1, None)), CATALOGUE, max_interactions_per_user=5, exclude_users=["ann"]
    )
    assert interactions.num_users == 0
    assert report.users == 0


def test_the_latest_rating_counts_in_whatever_row_it_stands() -> None:
    """A low rating after the purchase, in a row of a kind that counts nothing, takes the pair out."""
    kinds = {**SCHEMA, "rating": pl.Float64}
    table = pl.DataFrame(
        [
            ("ann", "i0001", 1, 3.0, 5.0),
            ("ann", "i0001", 2, 0.0, 1.0),
            ("ann", "i0002", 3, 0.0, 1.0),
            ("ann", "i0002", 4, 0.0, 5.0),
            ("ann", "i0002", 2, 1.0, None),
            ("ann", "i0003", 1, 0.0, 5.0),
        ],
        schema=kinds,
        orient="row",
    )
    interactions, report = clean(table, CATALOGUE, max_interactions_per_user=9, min_rating=4.0)
    assert history(interactions, "ann") == {"i0002"}
    assert interactions.frame.row(0, named=True)["timestamp"] == 2
    assert (report.low_ratings, report.non_positive_weights, report.duplicates) == (1, 4, 0)


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), 1e300])
def test_infinite_weights_and_ratings_are_no_numbers(bad: float) -> None:
    _, report = clean(rows(("ann", "i0001", 1, bad)), CATALOGUE, max_interactions_per_user=9)
    assert report.unusable_rows == 1
    rated = rows(("ann", "i0001", 1, None)).with_columns(pl.lit(bad).alias("rating"))
    _, report = clean(rated, CATALOGUE, max_interactions_per_user=9)
    assert report.unusable_rows == (0 if bad == 1e300 else 1)


ONE_ROW = st.tuples(
    st.sampled_from(["ann", "bob", "cid"]),
    st.sampled_from(CATALOGUE.item_ids[:6]),
    st.one_of(st.none(), st.integers(-1, 4)),
    st.sampled_from([None, -1.0, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(table=st.lists(ONE_ROW, max_size=30), cap=st.integers(1, 4))
def test_removing_one_person_leaves_everybody_else_as_they_were(table: list[Row], cap: int) -> None:
    everybody, report = clean(rows(*table), CATALOGUE, max_interactions_per_user=cap)
    without, _ = clean(
        rows(*(row for row in table if row[0] != "bob")), CATALOGUE, max_interactions_per_user=cap
    )
    for user_id in ("ann", "cid"):
        assert history(everybody, user_id) == history(without, user_id)
        assert len(history(everybody, user_id)) <= cap
    dropped = report.impossible_times + report.non_positive_weights + report.duplicates + report.rows_over_cap
    assert report.rows == report.interactions + dropped
