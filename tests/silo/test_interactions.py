from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from privacy.errors import DataError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.interactions import Interactions

CATALOGUE = Catalogue.from_items(CatalogueItem(item_id=name) for name in "abcd")


def frame(pairs: list[tuple[int, int, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema={"user_index": int, "item_index": int, "timestamp": int}, orient="row")


def small() -> Interactions:
    return Interactions(("u", "v", "w"), frame([(2, 3, 30), (0, 2, None), (0, 1, 10), (2, 0, 5)]), CATALOGUE)


def test_matrix_is_users_by_all_catalogue_items() -> None:
    matrix = small().matrix()
    assert matrix.dtype == np.float64
    assert matrix.has_sorted_indices
    np.testing.assert_array_equal(matrix.toarray(), [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]])


def timed(times: list[int | None]) -> Interactions:
    return Interactions(("u", "v"), frame([(0, item, time) for item, time in enumerate(times)]), CATALOGUE)


def test_histories_are_in_order_of_time_and_rows_without_one_are_the_oldest() -> None:
    found = timed([30, 10, None, 20]).histories()
    assert found.indices.tolist() == [2, 1, 3, 0]
    assert found.indptr.tolist() == [0, 4, 4]
    np.testing.assert_array_equal(found.toarray(), timed([30, 10, None, 20]).matrix().toarray())


def test_equal_times_are_ordered_by_user_and_item_alone() -> None:
    together = timed([7, 7, 7, 7])
    order = together.histories().indices.tolist()
    assert order != [0, 1, 2, 3]
    three = Interactions(("x", "u"), frame([(1, 3, 7), (1, 0, 7), (0, 2, 7), (1, 1, 7)]), CATALOGUE)
    assert three.history("u").indices.tolist() == [item for item in order if item != 2]


def test_one_history_is_the_row_of_all() -> None:
    everybody = small()
    for index, name in enumerate("uvw"):
        alone = everybody.history(name)
        assert alone.shape == (1, 4)
        assert alone.indices.tolist() == everybody.histories()[index].indices.tolist()
    assert everybody.history("stranger").nnz == 0


def test_disorder_counts_rows_without_a_time_and_ties() -> None:
    assert timed([5, 5, None, 8]).disorder() == (1, 2)
    assert small().disorder() == (1, 0)


def test_counts_and_history_of_one_user() -> None:
    interactions = small()
    assert (interactions.num_users, interactions.num_items, interactions.num_interactions) == (3, 4, 4)
    assert interactions.of("w").tolist() == [0, 3]
    assert interactions.of("v").tolist() == []
    assert interactions.of("stranger").tolist() == []


def test_frame_is_in_order_and_keeps_times() -> None:
    assert small().frame.rows() == [(0, 1, 10, 1.0), (0, 2, None, 1.0), (2, 0, 5, 1.0), (2, 3, 30, 1.0)]
    assert small().frame.schema == pl.Schema(
        {"user_index": pl.UInt32, "item_index": pl.UInt32, "timestamp": pl.Int64, "weight": pl.Float32}
    )


def test_selected_users_are_numbered_anew() -> None:
    chosen = small().select([2, 0])
    assert chosen.user_ids == ("w", "u")
    np.testing.assert_array_equal(chosen.matrix().toarray(), [[1, 0, 0, 1], [0, 1, 1, 0]])
    assert small().select([1]).matrix().shape == (1, 4)
    assert small().select([]).matrix().shape == (0, 4)


def test_rows_over_another_list_are_those_about_its_items() -> None:
    other = Catalogue.from_items(CatalogueItem(item_id=name) for name in "bde")
    moved = small().over(other)
    assert (moved.user_ids, moved.catalogue) == (small().user_ids, other)
    assert moved.frame.rows() == [(0, 0, 10, 1.0), (2, 1, 30, 1.0)]


@pytest.mark.parametrize("indices", [[3], [-1], [0, 0]])
def test_impossible_selections_are_refused(indices: list[int]) -> None:
    with pytest.raises(DataError):
        small().select(indices)


@pytest.mark.parametrize("row", [(3, 0, 1), (0, 4, 1), (-1, 0, 1), (2, 3, 99)])
def test_rows_out_of_range_or_repeated_are_refused(row: tuple[int, int, int]) -> None:
    with pytest.raises(DataError):
        Interactions(
            ("u", "v", "w"), pl.concat([small().frame.drop("weight").cast(pl.Int64), frame([row])]), CATALOGUE
        )


def test_nobody_at_all_is_an_empty_matrix() -> None:
    assert Interactions((), frame([]), CATALOGUE).matrix().shape == (0, 4)
