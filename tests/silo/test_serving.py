from __future__ import annotations

import numpy as np
import pytest

from privacy.errors import UsageError
from silo.data.interactions import Interactions
from silo.models.recommender import Recommender
from silo.serving import best_unseen, recommend
from tests.contracts.family_contract import make_catalogue, make_interactions

CATALOGUE = make_catalogue(6)


def known_users() -> Interactions:
    return make_interactions([[0, 1], [], [0, 1, 2, 3, 4, 5]], CATALOGUE)


def make_model(*, is_fallback: bool = False) -> Recommender:
    """After item i comes item i + 1; item 5 is the most popular."""
    return Recommender(
        left=np.eye(6, dtype=np.float32),
        right=np.roll(np.eye(6, dtype=np.float32), 1, axis=0),
        bias=np.zeros(6, np.float32),
        popularity=np.arange(6, dtype=np.float32),
        is_fallback=is_fallback,
    )


def test_rows_are_external_ids_by_rank() -> None:
    result = recommend(make_model(), CATALOGUE, known_users(), "u0", 3)
    assert [row.item_id for row in result.rows] == ["i0002", "i0003", "i0004"]
    assert [row.rank for row in result.rows] == [1, 2, 3]
    assert [row.title for row in result.rows] == ["Item 2", "Item 3", "Item 4"]
    assert [row.score for row in result.rows] == [0.5, 0.0, 0.0]
    assert {row.user_id for row in result.rows} == {"u0"}
    assert result.fallback is None
    assert not result.is_fallback


def test_seen_items_are_never_recommended() -> None:
    result = recommend(make_model(), CATALOGUE, known_users(), "u0", 6)
    assert {row.item_id for row in result.rows} == {"i0002", "i0003", "i0004", "i0005"}


@pytest.mark.parametrize("user_id", ["nobody", "u1", ""])
def test_a_user_without_history_gets_the_popularity_list_marked(user_id: str) -> None:
    result = recommend(make_model(), CATALOGUE, known_users(), user_id, 3)
    assert [row.item_id for row in result.rows] == ["i0005", "i0004", "i0003"]
    assert result.fallback == "unknown-user"
    assert result.is_fallback


def test_a_model_that_fell_back_says_so_and_still_hides_seen_items() -> None:
    users = make_interactions([[5]], CATALOGUE)
    result = recommend(make_model(is_fallback=True), CATALOGUE, users, "u0", 2)
    assert [row.item_id for row in result.rows] == ["i0004", "i0003"]
    assert result.fallback == "model"


def test_who_has_seen_everything_gets_nothing() -> None:
    assert recommend(make_model(), CATALOGUE, known_users(), "u2", 3).rows == ()


def test_ties_go_to_the_lower_item_id() -> None:
    scores = np.array([1.0, 3.0, 1.0, 3.0, 1.0])
    assert best_unseen(scores, np.array([], dtype=np.int64), 5) == [1, 3, 0, 2, 4]
    assert best_unseen(scores, np.array([1]), 2) == [3, 0]


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_of_no_items_is_refused(k: int) -> None:
    with pytest.raises(UsageError, match="list"):
        recommend(make_model(), CATALOGUE, known_users(), "u0", k)


def test_a_model_of_another_catalogue_is_refused() -> None:
    catalogue = make_catalogue(7)
    with pytest.raises(UsageError, match="6, 7 and 7 items"):
        recommend(make_model(), catalogue, make_interactions([[0]], catalogue), "u0", 3)
