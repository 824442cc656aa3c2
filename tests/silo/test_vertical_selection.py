from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from privacy.encryption.crossmoments.noise import noise_std
from privacy.encryption.crossmoments.parameters import MomentsShape
from privacy.errors import UsageError
from privacy.moments import feature_events
from silo.evaluation import NothingToEvaluateError, ScoresError, per_user_metrics, rank_scores
from silo.vertical.joint.model import JointModelError
from silo.vertical.joint.selection import (
    LabelUsers,
    choose_alone,
    choose_joint,
    popularity_rankings,
    random_halves,
    rankings,
)
from silo.vertical.moments.simulation import with_privacy, without_privacy
from silo.vertical.worlds import halved_columns, label_users, most_frequent_columns


def tasteful_rows(num_users: int = 400, num_items: int = 120, seed: int = 0) -> sp.csr_matrix:
    """Users of four tastes; each has a third of its taste's items and few others."""
    rng = np.random.default_rng(seed)
    tastes, kinds = rng.integers(4, size=num_users), rng.integers(4, size=num_items)
    chance = np.where(tastes[:, None] == kinds, 0.5, 0.04)
    return sp.csr_matrix((rng.random((num_users, num_items)) < chance).astype(float))


def halved(rows: sp.csr_matrix, label_items: int, seed: int) -> tuple[LabelUsers, sp.csr_matrix]:
    """A label silo's users and a feature silo's rows of them."""
    label, feature = halved_columns(rows, seed=seed, min_users=1)
    return label_users(sp.csr_matrix(rows[:, label]), label_items, seed), sp.csr_matrix(rows[:, feature])


def normalised(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


USERS, FEATURES = halved(tasteful_rows(), 2, 1)
FEATURE_ROWS = normalised(FEATURES.toarray())


def ndcg(users: LabelUsers, ranked: object) -> float:
    return float(np.mean(per_user_metrics(ranked)["ndcg@20"]))


def test_features_of_the_same_people_lift_the_label_silo() -> None:
    users = USERS
    alone = choose_alone(users)
    brought = without_privacy(users.rows, FEATURE_ROWS, 4)
    joint = choose_joint(users, alone, [brought.moments], [brought.features])
    with_partner = ndcg(users, rankings(users, users.test, joint.model, [brought.features]))
    by_itself = ndcg(users, rankings(users, users.test, alone.model, ()))
    assert with_partner > 1.15 * by_itself
    assert by_itself > ndcg(users, popularity_rankings(users, users.test))
    assert joint.validation >= alone.validation


def test_features_that_are_noise_leave_the_choice_no_worse_on_validation() -> None:
    users = USERS
    alone = choose_alone(users)
    nothing = normalised(np.random.default_rng(5).normal(size=(400, 10)))
    brought = without_privacy(users.rows, nothing, 4)
    chosen = choose_joint(users, alone, [brought.moments] * 2, [brought.features] * 2)
    assert chosen.validation >= alone.validation
    found = ndcg(users, rankings(users, users.test, chosen.model, [brought.features] * 2))
    assert found > 0.9 * ndcg(users, rankings(users, users.test, alone.model, ()))


def test_the_clear_and_the_encrypted_way_carry_the_same_noise_and_events() -> None:
    users = USERS
    num_users, num_items = users.rows.shape
    shape = MomentsShape(num_users, num_items, 4, max_row_norm=2**0.5)
    events = feature_events(0.6)
    told: list[int] = []
    for is_encrypted in (False, True):
        brought = with_privacy(
            users.rows,
            FEATURE_ROWS,
            4,
            events,
            shape=shape,
            is_encrypted=is_encrypted,
            progress=told.append,
        )
        assert brought.events == tuple(events)
        noise = brought.moments.cross - users.rows.T @ brought.features
        assert noise.std() == pytest.approx(noise_std(events.moments.noise_multiplier, shape), rel=0.2)
    assert told == [256, 400]


def test_figures_come_from_users_that_nothing_was_chosen_on() -> None:
    users = USERS
    assert not set(users.validation) & set(users.test)
    assert abs(users.validation.size - users.test.size) < 40
    flags = random_halves(101, 3)
    assert flags.sum() == 50
    np.testing.assert_array_equal(flags, random_halves(101, 3))


def test_users_that_cannot_be_evaluated_are_refused() -> None:
    rows = sp.csr_matrix(np.eye(4))
    with pytest.raises(NothingToEvaluateError):
        LabelUsers(rows, sp.csr_matrix((4, 4)), random_halves(4, 0))
    with pytest.raises(JointModelError):
        LabelUsers(rows, sp.csr_matrix((3, 4)), random_halves(4, 0))


def test_each_user_trains_on_few_items_and_no_item_is_on_both_sides() -> None:
    rows = tasteful_rows()
    users = label_users(rows, 5, 0)
    lengths = np.diff(rows.indptr)
    np.testing.assert_array_equal(
        np.diff(users.rows.indptr), np.minimum(5, np.maximum(np.minimum(lengths, 1), lengths // 2))
    )
    assert users.rows.multiply(users.held_out).nnz == 0
    assert (users.rows + users.held_out != rows).nnz == 0
    with pytest.raises(UsageError):
        label_users(rows, 0, 0)


def test_halves_are_disjoint_columns_of_one_catalogue() -> None:
    rows = tasteful_rows()
    label, feature = halved_columns(rows, seed=2, min_users=1)
    assert sorted([*label, *feature]) == list(range(rows.shape[1]))
    assert abs(label.size - feature.size) <= 1
    popular, others = halved_columns(rows, seed=2, min_users=60)
    counts = np.asarray(rows.sum(axis=0)).ravel()
    assert sorted([*popular, *others]) == np.flatnonzero(counts >= 60).tolist()


def test_the_most_frequent_items_say_how_much_they_cover() -> None:
    rows = sp.csr_matrix(np.array([[1, 0, 1], [1, 0, 1], [1, 1, 0]], dtype=float))
    kept, coverage = most_frequent_columns(rows, 2)
    assert kept.tolist() == [0, 2]
    assert coverage == pytest.approx(5 / 6)


def test_scores_that_are_none_are_not_ranked() -> None:
    histories = sp.csr_matrix(np.eye(3))
    with pytest.raises(ScoresError):
        rank_scores(np.zeros((3, 2)), histories, histories)
    with pytest.raises(ScoresError):
        rank_scores(np.full((3, 3), np.nan), histories, histories)
    ranked = rank_scores(np.tile([1.0, 3.0, 2.0], (3, 1)), histories, histories)
    np.testing.assert_array_equal(ranked.top[:, :2], [[1, 2], [2, 0], [1, 0]])
