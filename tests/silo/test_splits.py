from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean
from silo.data.ordering import pair_hashes
from silo.data.splits import NoTimesError, TooManySilosError, hold_out, partition_by_taste, split

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}


# computed once from the definition in silo/data/ordering.py with Python integers
GOLDEN_HASH = 2824416499289703924
GOLDEN_HELD_OUT = [("ann", "i001"), ("ann", "i006"), ("bob", "i001"), ("bob", "i003")]


def rows_of(sizes: dict[str, int]) -> pl.DataFrame:
    table = [(user, f"i{item:03d}", 1000 + item) for user, size in sizes.items() for item in range(size)]
    return pl.DataFrame(table, schema=SCHEMA, orient="row")


def pairs(rows: pl.DataFrame) -> set[tuple[str, str]]:
    return set(rows.select("user_id", "item_id").iter_rows())


def test_random_holds_out_a_fifth_rounded_down_but_at_least_one() -> None:
    sizes = {"one": 1, "two": 2, "nine": 9, "ten": 10, "fifteen": 15, "hundred": 100}
    train, held = split(rows_of(sizes), "random", 0.2, seed=7)
    counts = dict(held["user_id"].value_counts().iter_rows())
    assert counts == {"two": 1, "nine": 1, "ten": 2, "fifteen": 3, "hundred": 20}
    assert pairs(train) | pairs(held) == pairs(rows_of(sizes))
    assert not pairs(train) & pairs(held)


def test_a_split_is_fixed_for_all_time() -> None:
    """Changing these values silently would change every published figure."""
    _, held = split(rows_of({"ann": 10, "bob": 10}), "random", 0.2, seed=7)
    assert held.select("user_id", "item_id").rows() == GOLDEN_HELD_OUT
    hashes = pair_hashes(pl.Series(["ann"]), pl.Series(["i000"]), key="golden")
    assert int(hashes[0]) == GOLDEN_HASH


def test_a_split_depends_on_the_seed_and_on_nobody_else() -> None:
    everybody = rows_of({"ann": 40, "bob": 40, "cid": 40})
    _, held = split(everybody, "random", 0.2, seed=1)
    shuffled = everybody.filter(pl.col("user_id") != "bob").sample(fraction=1.0, shuffle=True, seed=3)
    _, without_bob = split(shuffled, "random", 0.2, seed=1)
    assert pairs(without_bob) == {pair for pair in pairs(held) if pair[0] != "bob"}
    assert pairs(split(everybody, "random", 0.2, seed=2)[1]) != pairs(held)


def test_last_holds_out_the_most_recent_row_only() -> None:
    rows = rows_of({"ann": 9, "one": 1}).sample(fraction=1.0, shuffle=True, seed=5)
    assert pairs(split(rows, "last")[1]) == {("ann", "i008")}


def test_last_takes_rows_without_a_time_for_the_oldest() -> None:
    rows = pl.DataFrame([("ann", "a", None), ("ann", "b", 0)], schema=SCHEMA, orient="row")
    assert pairs(split(rows, "last")[1]) == {("ann", "b")}


def test_last_without_any_time_says_what_to_do_instead() -> None:
    rows = rows_of({"ann": 3}).with_columns(pl.lit(None, pl.Int64).alias("timestamp"))
    with pytest.raises(NoTimesError, match="random"):
        split(rows, "last")


def test_none_holds_out_nothing() -> None:
    assert split(rows_of({"ann": 5}), "none")[1].is_empty()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, float("nan")])
def test_an_impossible_fraction_is_a_usage_error(fraction: float) -> None:
    with pytest.raises(UsageError):
        split(rows_of({"ann": 5}), "random", fraction)


@pytest.mark.parametrize("kind", ["random", "last", "none"])
def test_interactions_are_split_exactly_as_rows_are(kind: str) -> None:
    rows = rows_of({"ann": 12, "bob": 1, "cid": 33})
    catalogue = Catalogue.from_items(CatalogueItem(item_id=f"i{number:03d}") for number in range(40))
    interactions, _ = clean(rows, catalogue, max_interactions_per_user=100)
    train, held = hold_out(interactions, kind, fraction=0.25, seed=4)  # type: ignore[arg-type]
    assert train.user_ids == held.user_ids == ("ann", "bob", "cid")
    found = {(user, catalogue.item_ids[item]) for user in held.user_ids for item in held.of(user)}
    assert found == pairs(split(rows, kind, 0.25, seed=4)[1])  # type: ignore[arg-type]
    assert train.num_interactions + held.num_interactions == interactions.num_interactions


def tasteful(num_users: int = 600, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray]:
    """Six kinds of people with ten favourite items each, and some noise."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 6, num_users)
    likes = rng.random((num_users, 60)) < np.where(np.arange(60) // 10 == kinds[:, None], 0.7, 0.03)
    return sp.csr_matrix(likes.astype(np.float64)), kinds


@pytest.mark.parametrize("num_silos", [1, 2, 4, 9, 25])
def test_silos_are_uneven_and_never_empty(num_silos: int) -> None:
    silos = partition_by_taste(tasteful()[0], num_silos, seed=3)
    sizes = np.bincount(silos, minlength=num_silos)
    assert sizes.size == num_silos
    assert sizes.min() >= 1
    assert num_silos == 1 or sizes.max() > 1.15 * sizes.mean()


def test_four_silos_have_about_the_intended_shares() -> None:
    matrix, _ = tasteful(4000)
    sizes = np.bincount(partition_by_taste(matrix, 4, seed=1)) / 4000
    np.testing.assert_allclose(sizes, [0.41, 0.25, 0.19, 0.15], atol=0.06)


def test_silos_differ_in_taste() -> None:
    matrix, kinds = tasteful(2000)
    silos = partition_by_taste(matrix, 4, seed=2)
    mixtures = np.stack(
        [np.bincount(kinds[silos == silo], minlength=6) / (silos == silo).sum() for silo in range(4)]
    )
    overall = np.bincount(kinds) / kinds.size
    assert np.abs(mixtures - overall).sum(axis=1).mean() > 0.3


def test_a_partition_follows_from_its_seed() -> None:
    matrix, _ = tasteful()
    first = partition_by_taste(matrix, 4, seed=5)
    np.testing.assert_array_equal(first, partition_by_taste(matrix, 4, seed=5))
    assert (first != partition_by_taste(matrix, 4, seed=6)).any()


def test_tiny_and_degenerate_sets_still_part() -> None:
    assert sorted(partition_by_taste(sp.csr_matrix((5, 3)), 5, seed=0)) == [0, 1, 2, 3, 4]
    assert partition_by_taste(sp.csr_matrix(np.eye(2)), 1, seed=0).tolist() == [0, 0]


def test_more_silos_than_users_is_refused() -> None:
    with pytest.raises(TooManySilosError, match="7 silos, but only 6 users"):
        partition_by_taste(sp.csr_matrix(np.eye(6)), 7, seed=0)
    with pytest.raises(UsageError):
        partition_by_taste(sp.csr_matrix(np.eye(6)), 0, seed=0)
