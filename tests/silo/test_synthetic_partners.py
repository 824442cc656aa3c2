"""What partners of the marketplace know follows its people's tastes, and changes none of its own rows."""

from __future__ import annotations

import numpy as np
import polars as pl

from silo.data.synthetic import marketplace
from silo.data.synthetic_partners import content_views, follows

SIZE = (300, 80)


def shares(rows: pl.DataFrame, user_ids: list[str]) -> np.ndarray:
    """People × items, rows of norm 1."""
    items = {item: place for place, item in enumerate(rows["item_id"].unique().sort())}
    people = {user: place for place, user in enumerate(user_ids)}
    matrix = np.zeros((len(people), len(items)))
    for user, item in rows.select("user_id", "item_id").iter_rows():
        matrix[people[user], items[item]] = 1.0
    matrix -= matrix.mean(axis=0)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))


def likeness(rows: pl.DataFrame, user_ids: list[str]) -> np.ndarray:
    """How alike two people are, for each pair."""
    matrix = shares(rows, user_ids)
    return np.asarray((matrix @ matrix.T)[np.triu_indices(len(user_ids), 1)])


def test_who_is_alike_at_the_shop_is_alike_elsewhere() -> None:
    market = marketplace(4, *SIZE)
    people = market.rows["user_id"].unique().sort().to_list()
    at_shop = likeness(market.rows, people)
    for rows in (content_views(4, *SIZE, 60), follows(4, *SIZE)):
        assert np.corrcoef(at_shop, likeness(rows, people))[0, 1] > 0.2


def test_each_pair_stands_once_and_nobody_follows_themselves() -> None:
    views, followed = content_views(2, *SIZE, 51), follows(2, *SIZE)
    for rows in (views, followed):
        assert rows.columns == ["user_id", "item_id"]
        assert rows.is_unique().all()
        assert rows["user_id"].n_unique() == SIZE[0]
    kinds = views["item_id"].str.split("-").list.first()
    assert set(kinds) == {"article", "video"}
    assert views["item_id"].n_unique() <= 51
    assert not (followed["user_id"] == followed["item_id"]).any()


def test_same_seed_same_rows_and_other_seed_others() -> None:
    assert content_views(1, *SIZE, 60).equals(content_views(1, *SIZE, 60))
    assert not content_views(1, *SIZE, 60).equals(content_views(2, *SIZE, 60))
    assert follows(1, *SIZE).equals(follows(1, *SIZE))
    assert not follows(1, *SIZE).equals(follows(2, *SIZE))
