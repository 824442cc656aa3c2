"""Who takes part in an alignment, and the columns of a feature silo: fixed, and dependent on one row each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.alignment.blinding import Blinding
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.vertical.alignment import shards
from silo.vertical.alignment.people import People, on_spine
from silo.vertical.columns import FOLDED_COLUMNS, MAX_COLUMNS, column_map

PEPPER = bytes(range(32))


def interactions(rows: list[tuple[str, str]]) -> Interactions:
    items = Catalogue.from_items(CatalogueItem(item_id=item) for item in {item for _, item in rows})
    table = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    return clean(table, items, max_interactions_per_user=100)[0]


def test_ids_that_are_written_alike_are_one_person_with_the_rows_of_both() -> None:
    rows = interactions([("A@x.org", "a"), ("a@x.org", "b"), ("b@x.org", "b")])
    people = People.of(rows.user_ids, "email", PEPPER)
    assert people.rows_of(rows).toarray().tolist() == [[1, 1], [0, 1]]


def test_an_id_that_is_none_is_left_out_and_nobody_else_hears_of_it() -> None:
    people = People.of(["a@x.org", "no address", "b@x.org"], "email", PEPPER)
    assert people.user_ids == ("a@x.org", "b@x.org")


def test_people_stay_who_they_were_when_rows_change(tmp_path: Path) -> None:
    people = People.of(["a", "b"], "exact", PEPPER)
    people.save(tmp_path / "people")
    later = interactions([("b", "i"), ("c", "i"), ("c", "j")])
    assert People.load(tmp_path / "people") == people
    assert people.rows_of(later).toarray().tolist() == [[0, 0], [1, 0]]


def test_whoever_has_no_slot_is_not_on_the_spine() -> None:
    spine = on_spine(np.array([[1.0], [2.0], [3.0]]), np.array([2, -1, 0]), 4)
    assert spine.ravel().tolist() == [3.0, 0.0, 1.0, 0.0]


@given(
    mine=st.sets(st.text(min_size=1, max_size=8), min_size=1), others=st.sets(st.text(min_size=1, max_size=8))
)
def test_where_an_item_counts_depends_on_its_id_alone(mine: set[str], others: set[str]) -> None:
    """A vocabulary would: then whoever is the only one with some item shows in everybody's columns."""
    alone = dict(
        zip(sorted(mine), column_map(sorted(mine), is_public_list=False).toarray().tolist(), strict=True)
    )
    everything = sorted(mine | others)
    together = dict(
        zip(everything, column_map(everything, is_public_list=False).toarray().tolist(), strict=True)
    )
    assert all(together[item] == alone[item] for item in mine)


def test_a_public_list_has_a_column_for_each_item_as_long_as_it_is_short() -> None:
    names = [f"i{n}" for n in range(MAX_COLUMNS + 1)]
    assert column_map(names[:-1], is_public_list=True).shape == (MAX_COLUMNS, MAX_COLUMNS)
    assert column_map(names, is_public_list=True).shape == (MAX_COLUMNS + 1, FOLDED_COLUMNS)


def test_folding_keeps_inner_products_on_average() -> None:
    names = [f"i{n}" for n in range(4000)]
    folded = column_map(names, is_public_list=False)
    assert (
        abs(folded[:2000].sum(axis=0) @ folded[2000:].sum(axis=0).T).item() < 6 * 2000 / FOLDED_COLUMNS**0.5
    )
    assert 1800 < (folded.data > 0).sum() < 2200


def test_a_list_in_shards_is_the_same_list(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"{n}" for n in range(3000)]
    whole = Blinding(PEPPER, "run").own_list(words, 4000)
    with ThreadPoolExecutor(3) as pool:
        assert Blinding(PEPPER, "run").own_list(words, 4000, mapping=pool.map) == whole
        other = Blinding(PEPPER[::-1], "run")
        assert other.blind(whole, 4000, mapping=pool.map) == other.blind(whole, 4000)


def test_short_lists_start_no_processes() -> None:
    with shards.sharded(shards.SHARDED_FROM - 1) as mapping:
        assert mapping is map
