"""Laws of splits that hold for all rows, seeds and fractions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.data.splits import partition_by_taste, split

PAIRS = st.sets(
    st.tuples(st.text("abc", min_size=1, max_size=2), st.text("xyz", min_size=1, max_size=3)), max_size=60
)
FRACTIONS = st.floats(0.01, 0.99)


def rows_of(pairs: set[tuple[str, str]]) -> pl.DataFrame:
    table = [(user, item, len(item)) for user, item in sorted(pairs)]
    return pl.DataFrame(
        table, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}, orient="row"
    )


def as_set(rows: pl.DataFrame) -> set[tuple[str, str]]:
    return set(rows.select("user_id", "item_id").iter_rows())


@settings(max_examples=80, deadline=None)
@given(pairs=PAIRS, fraction=FRACTIONS, seed=st.integers(0, 2**32))
def test_parts_are_disjoint_complete_and_of_the_promised_size(
    pairs: set[tuple[str, str]], fraction: float, seed: int
) -> None:
    train, held = split(rows_of(pairs), "random", fraction, seed)
    assert as_set(train) | as_set(held) == pairs
    assert train.height + held.height == len(pairs)
    owned, kept_out = Counter(user for user, _ in pairs), Counter(held["user_id"].to_list())
    for user, count in owned.items():
        wanted = 0 if count < 2 else min(count - 1, max(1, int(np.floor(fraction * count + 1e-9))))
        assert kept_out[user] == wanted


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, fraction=FRACTIONS, seed=st.integers(0, 2**32), kind=st.sampled_from(["random", "last"]))
def test_removing_one_person_changes_nobody_elses_split(
    pairs: set[tuple[str, str]], fraction: float, seed: int, kind: str
) -> None:
    gone = min((user for user, _ in pairs), default="a")
    rest = {pair for pair in pairs if pair[0] != gone}
    if not rest:
        return
    _, held = split(rows_of(pairs), kind, fraction, seed)  # type: ignore[arg-type]
    _, held_without = split(rows_of(rest), kind, fraction, seed)  # type: ignore[arg-type]
    assert as_set(held_without) == {pair for pair in as_set(held) if pair[0] != gone}


@settings(max_examples=40, deadline=None)
@given(data=st.data(), num_users=st.integers(1, 40), seed=st.integers(0, 1000))
def test_every_silo_has_somebody_and_everybody_has_a_silo(
    data: st.DataObject, num_users: int, seed: int
) -> None:
    num_silos = data.draw(st.integers(1, num_users))
    draws = np.random.default_rng(seed).random((num_users, 17))
    silos = partition_by_taste(sp.csr_matrix((draws < 0.2).astype(np.float64)), num_silos, seed)
    assert silos.shape == (num_users,)
    assert set(silos.tolist()) == set(range(num_silos))
