from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from privacy.errors import UsageError
from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.public_sets import ROW_SCHEMA, PublicSet
from silo.data.splits import hold_out
from silo.data.synthetic import DEPARTMENTS, STYLES, marketplace
from silo.evaluation import fast_metrics, rank


@pytest.fixture(scope="module")
def market() -> PublicSet:
    return marketplace(0)


@pytest.fixture(scope="module")
def interactions(market: PublicSet) -> Interactions:
    return clean(market.rows, market.catalogue, max_interactions_per_user=10_000)[0]


class Popularity:
    def __init__(self, matrix: sp.csr_matrix) -> None:
        self.counts = np.asarray(matrix.sum(axis=0)).ravel()

    def scores(self, histories: sp.csr_matrix) -> np.ndarray:
        return np.tile(self.counts, (histories.shape[0], 1))


class Ease:
    """Closed-form item regression (Steck 2019), the plain yardstick."""

    def __init__(self, matrix: sp.csr_matrix, ridge: float = 300.0) -> None:
        gram = (matrix.T @ matrix).toarray() + ridge * np.eye(matrix.shape[1])
        precision = np.linalg.inv(gram)
        self.weights = -precision / np.diag(precision)
        np.fill_diagonal(self.weights, 0.0)

    def scores(self, histories: sp.csr_matrix) -> np.ndarray:
        return histories @ self.weights


def test_the_size_is_as_promised(market: PublicSet, interactions: Interactions) -> None:
    assert interactions.num_users >= 8_000
    assert interactions.num_items >= 1_000
    assert market.rows.schema == ROW_SCHEMA
    assert np.diff(interactions.matrix().indptr).min() >= 5


def test_same_seed_same_marketplace_other_seed_another() -> None:
    first, again, other = (marketplace(seed, num_users=300, num_items=60) for seed in (3, 3, 4))
    assert first.rows.equals(again.rows)
    assert first.catalogue.sha256 == again.catalogue.sha256
    assert first.friends is not None
    assert again.friends is not None
    assert first.friends.equals(again.friends)
    assert not first.rows.equals(other.rows)


def test_people_and_items_have_long_tails(interactions: Interactions) -> None:
    matrix = interactions.matrix()
    activity = np.diff(matrix.indptr)
    popularity = np.sort(np.asarray(matrix.sum(axis=0)).ravel())[::-1]
    assert np.percentile(activity, 99) > 5 * np.median(activity)
    assert popularity[: popularity.size // 10].sum() > 0.35 * popularity.sum()


def test_models_can_learn_more_than_popularity(interactions: Interactions) -> None:
    train, held = hold_out(interactions, "random", seed=7)
    popularity = fast_metrics(rank(Popularity(train.matrix()), train, held))["ndcg@20"]
    learned = fast_metrics(rank(Ease(train.matrix()), train, held))["ndcg@20"]
    assert 1.5 * popularity < learned < 2.2 * popularity


def test_attributes_and_texts_tell_of_the_hidden_tastes(
    market: PublicSet, interactions: Interactions
) -> None:
    """Two items of one department share more users than two of different ones."""
    matrix = interactions.matrix()
    normalised = matrix / sp.linalg.norm(matrix, axis=0).clip(1)
    likeness = (sp.csc_matrix(normalised).T @ sp.csc_matrix(normalised)).toarray()
    departments = np.array([item.attributes[0] for item in market.catalogue.items])
    together = departments[:, None] == departments[None, :]
    apart = ~together
    np.fill_diagonal(together, False)
    assert likeness[together].mean() > 1.5 * likeness[apart].mean()
    for item in market.catalogue.items:
        department, price, style = (label.split(": ")[1] for label in item.attributes)
        assert department in DEPARTMENTS
        assert style in STYLES
        assert department in item.text
        assert style in item.text
        assert price in item.text


def test_times_lie_in_two_years_and_repeat_by_visit(market: PublicSet) -> None:
    times = market.rows["timestamp"]
    assert times.null_count() == 0
    assert 1_672_531_200 <= times.min() < times.max() < 1_672_531_200 + 731 * 86_400  # type: ignore[operator]
    days = market.rows.with_columns((pl.col("timestamp") // 86_400).alias("day"))
    assert days.group_by("user_id", "day").len()["len"].mean() > 2  # type: ignore[operator]


def test_friends_share_tastes(market: PublicSet, interactions: Interactions) -> None:
    friends = market.friends
    assert friends is not None
    assert (friends["user_id"] < friends["friend_id"]).all()
    assert friends.n_unique() == friends.height
    matrix = interactions.matrix()
    normalised = sp.csr_matrix(sp.diags(1 / sp.linalg.norm(matrix, axis=1)) @ matrix)
    index = {user: number for number, user in enumerate(interactions.user_ids)}
    left = np.array([index[user] for user in friends["user_id"]])
    right = np.array([index[user] for user in friends["friend_id"]])
    likeness = normalised[left].multiply(normalised[right]).sum(axis=1)
    strangers = normalised[left].multiply(normalised[np.random.default_rng(0).permutation(right)]).sum(axis=1)
    assert likeness.mean() > 1.5 * strangers.mean()


def test_sizes_that_make_no_marketplace_are_refused() -> None:
    with pytest.raises(UsageError):
        marketplace(0, num_users=1)
    with pytest.raises(UsageError):
        marketplace(0, num_items=10)
