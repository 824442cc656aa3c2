from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from privacy.errors import DataError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.interactions import Interactions
from silo.evaluation import (
    METRICS,
    TOP,
    USERS_PER_BLOCK,
    NothingToEvaluateError,
    ScoresError,
    evaluate,
    fast_metrics,
    rank,
    rank_each_alone,
    reported_metrics,
)


def catalogue(num_items: int) -> Catalogue:
    return Catalogue.from_items(CatalogueItem(item_id=f"i{number:04d}") for number in range(num_items))


def interactions(matrix: np.ndarray, user_ids: tuple[str, ...] | None = None) -> Interactions:
    users, items = np.nonzero(matrix)
    frame = pl.DataFrame({"user_index": users, "item_index": items, "timestamp": [None] * users.size})
    names = user_ids or tuple(f"u{number:04d}" for number in range(matrix.shape[0]))
    return Interactions(names, frame, catalogue(matrix.shape[1]))


class Fixed:
    """Scores that do not depend on the history; remembers how many users it was asked for at once."""

    def __init__(self, scores: np.ndarray) -> None:
        self.by_item = scores
        self.blocks: list[int] = []

    def scores(self, histories: sp.csr_matrix) -> np.ndarray:
        self.blocks.append(histories.shape[0])
        return np.tile(self.by_item, (histories.shape[0], 1))


class PerUser:
    """Random scores, drawn from the history so that they are the same whatever the block."""

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def scores(self, histories: sp.csr_matrix) -> np.ndarray:
        mixed = np.random.default_rng(0).integers(0, 1000, (histories.shape[1], histories.shape[1]))
        return (histories @ mixed) % self.levels


def split_at_random(
    num_users: int, num_items: int, density: float, seed: int
) -> tuple[Interactions, Interactions]:
    rng = np.random.default_rng(seed)
    draws = rng.random((num_users, num_items))
    return interactions(draws < density), interactions((draws >= density) & (draws < 1.4 * density))


def test_a_hand_computed_case() -> None:
    """Ranking b, d, e, … after masking the seen a; b and f are relevant: places 1 and 4."""
    train = interactions(np.array([[1, 0, 0, 0, 0, 0]]))
    held = interactions(np.array([[0, 1, 0, 0, 0, 1]]))
    metrics = evaluate(Fixed(np.array([9.0, 8, 1, 7, 6, 5])), train, held)
    ideal = 1 + 1 / np.log2(3)
    assert metrics == pytest.approx(
        {
            "recall@10": 1.0,
            "recall@20": 1.0,
            "ndcg@10": (1 + 1 / np.log2(5)) / ideal,
            "ndcg@20": (1 + 1 / np.log2(5)) / ideal,
            "precision@10": 0.2,
            "f1@10": 2 * 0.2 / 1.2,
            "hit_rate@10": 1.0,
            "mrr@10": 1.0,
            "coverage@20": 5 / 6,
        }
    )
    assert tuple(metrics) == METRICS


@pytest.mark.parametrize(
    ("num_users", "num_items", "density", "levels"),
    [(700, 120, 0.1, 10_000), (150, 90, 0.3, 4), (60, 12, 0.4, 3), (40, 300, 0.02, 1), (90, 25, 0.6, 50)],
)
def test_the_fast_path_equals_ir_measures(
    num_users: int, num_items: int, density: float, levels: int
) -> None:
    train, held = split_at_random(num_users, num_items, density, seed=levels)
    rankings = rank(PerUser(levels), train, held)
    reported, fast = reported_metrics(rankings), fast_metrics(rankings)
    assert tuple(reported) == tuple(fast) == METRICS
    for name in METRICS:
        assert fast[name] == pytest.approx(reported[name], abs=1e-9), name


def test_rankings_are_those_of_a_full_stable_sort() -> None:
    train, held = split_at_random(120, 60, 0.3, seed=1)
    rankings = rank(PerUser(5), train, held)
    evaluated = np.flatnonzero(np.diff(held.matrix().indptr))
    histories = train.matrix()[evaluated]
    for user, scores in enumerate(PerUser(5).scores(histories).astype(float)):
        seen = set(histories[user].indices)
        expected = [item for item in np.argsort(-scores, kind="stable") if item not in seen][:TOP]
        assert [item for item in rankings.top[user] if item >= 0] == expected


def test_ties_go_to_the_smaller_item_index() -> None:
    train = interactions(np.eye(1, 40))
    held = interactions(np.eye(1, 40, k=5))
    assert rank(Fixed(np.zeros(40)), train, held).top[0].tolist() == list(range(1, 21))


def test_a_user_who_has_seen_nearly_everything_gets_a_short_list() -> None:
    matrix = np.ones((1, 30))
    matrix[0, [4, 9]] = 0
    rankings = rank(Fixed(np.arange(30.0)), interactions(matrix), interactions(np.eye(1, 30, k=4)))
    assert rankings.top[0].tolist() == [9, 4] + [-1] * 18
    assert fast_metrics(rankings)["mrr@10"] == pytest.approx(0.5)
    assert reported_metrics(rankings)["mrr@10"] == pytest.approx(0.5)


def test_only_users_with_held_out_items_count_and_they_are_matched_by_id() -> None:
    train = interactions(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]), ("ann", "bob", "cid"))
    held = interactions(np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]]), ("ann", "bob", "new"))
    rankings = rank(Fixed(np.array([3.0, 2.0, 1.0])), train, held)
    assert rankings.top[:, :3].tolist() == [[1, 2, -1], [0, 1, 2]]
    assert reported_metrics(rankings)["mrr@10"] == 1.0


def test_users_are_scored_in_blocks() -> None:
    everybody = np.ones((2 * USERS_PER_BLOCK + 7, 1))
    train, held = interactions(everybody * [1, 0, 0]), interactions(everybody * [0, 1, 0])
    scorer = Fixed(np.arange(3.0))
    assert rank(scorer, train, held).top.shape == (2 * USERS_PER_BLOCK + 7, TOP)
    assert scorer.blocks == [USERS_PER_BLOCK, USERS_PER_BLOCK, 7]


def test_each_alone_is_ranked_as_in_a_block_by_one_call_a_user() -> None:
    train, held = split_at_random(40, 60, 0.3, seed=2)
    together = rank(PerUser(7), train, held)
    alone = list(rank_each_alone(PerUser(7), train, held))
    np.testing.assert_array_equal(np.concatenate([ranking.top for ranking in alone]), together.top)
    assert (sp.vstack([ranking.relevant for ranking in alone]) != together.relevant).nnz == 0
    scorer = Fixed(np.arange(60.0))
    assert [ranking.top.shape for ranking in rank_each_alone(scorer, train, held)] == [(1, TOP)] * len(alone)
    assert scorer.blocks == [1] * len(alone)


def test_alone_nobody_and_a_score_that_is_none_stop_nothing() -> None:
    train = interactions(np.eye(1, 4))
    assert list(rank_each_alone(Fixed(np.zeros(4)), train, interactions(np.zeros((1, 4))))) == []
    scores = np.array([1.0, np.nan, 2.0, 3.0])
    (ranking,) = rank_each_alone(Fixed(scores), train, interactions(np.eye(1, 4, k=1)))
    assert ranking.top[0, :3].tolist() == [3, 2, -1]


def test_nobody_to_evaluate_is_said() -> None:
    train = interactions(np.ones((2, 3)))
    with pytest.raises(NothingToEvaluateError):
        evaluate(Fixed(np.zeros(3)), train, interactions(np.zeros((2, 3))))


@pytest.mark.parametrize("scores", [np.zeros(4), np.array([0.0, np.nan, 1.0])])
def test_scores_that_are_not_scores_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ScoresError):
        evaluate(Fixed(scores), interactions(np.eye(3)), interactions(np.eye(3, k=1)))


def test_different_catalogues_are_refused() -> None:
    with pytest.raises(DataError, match="different catalogues"):
        evaluate(Fixed(np.zeros(3)), interactions(np.eye(3)), interactions(np.eye(4)))
