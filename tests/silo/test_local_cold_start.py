from __future__ import annotations

import numpy as np
import pytest

from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.interactions import Interactions
from silo.local.cold_start import MIN_LIST, new_item
from silo.models.recommender import Recommender
from silo.serving import recommend
from tests.contracts.family_contract import make_interactions

NUM_ITEMS = 40
GENRES = ("drama", "war", "noir", "comedy")
NEW = range(32, 40)
"""Nobody has these; two of each genre."""


def catalogue(*, attributes: bool = True) -> Catalogue:
    return Catalogue.from_items(
        CatalogueItem(item_id=f"i{item:02d}", attributes=(GENRES[item % 4],) if attributes else ())
        for item in range(NUM_ITEMS)
    )


def everybody(items: Catalogue) -> Interactions:
    """u0 … u3 like one genre each, u4 has nothing; u5 has the rest, so that only ``NEW`` are new."""
    one_genre = [[item for item in range(12) if item % 4 == genre] for genre in range(4)]
    return make_interactions([*one_genre, [], list(range(32))], items)


@pytest.mark.parametrize("user", range(4))
def test_the_new_item_is_of_the_persons_genre(user: int) -> None:
    items = catalogue()
    found = new_item(items, everybody(items), f"u{user}", range(20, 30))
    assert found is not None
    assert found in NEW
    assert found % 4 == user


def test_equals_are_settled_by_person_not_by_place() -> None:
    items = catalogue()
    rows = make_interactions([[0, 4]] * 60 + [list(range(32))], items)
    found = [new_item(items, rows, f"u{user}", range(20, 30)) for user in range(60)]
    assert set(found) == {32, 36}
    assert found == [new_item(items, rows, f"u{user}", range(20, 30)) for user in range(60)]


@pytest.mark.parametrize(
    ("user", "ranked"),
    [("u4", range(10)), ("stranger", range(10)), ("u0", range(MIN_LIST - 1)), ("u0", range(24, 34))],
    ids=["no history", "unknown", "short list", "there is one already"],
)
def test_where_no_place_is_reserved(user: str, ranked: range) -> None:
    items = catalogue()
    assert new_item(items, everybody(items), user, ranked) is None


def test_without_attributes_or_without_new_items_there_is_none() -> None:
    plain, items = catalogue(attributes=False), catalogue()
    assert new_item(plain, everybody(plain), "u0", range(20, 30)) is None
    rows = make_interactions([[0], list(range(NUM_ITEMS))], items)
    assert new_item(items, rows, "u0", range(20, 30)) is None


def test_it_takes_the_last_place_of_a_list_and_nothing_else_moves() -> None:
    items = catalogue()
    popularity = np.arange(NUM_ITEMS, 0, -1).astype(np.float32)
    model = Recommender.of_popularity(popularity, {}, is_fallback=False)
    plain = recommend(model, items, everybody(items), "u0", 12)
    reserved = recommend(model, items, everybody(items), "u0", 12, reserve=True)
    assert plain.new_item is None
    assert reserved.rows[:-1] == plain.rows[:-1]
    assert reserved.rows[-1].item_id == reserved.new_item in ("i32", "i36")
    assert [row.score for row in reserved.rows] == sorted((row.score for row in reserved.rows), reverse=True)
