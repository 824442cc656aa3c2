from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from privacy.errors import UsageError
from silo.vertical.joint.model import (
    FeatureMoments,
    FeatureSide,
    ItemSide,
    JointModel,
    JointModelError,
    Weights,
)

RNG = np.random.default_rng(0)
ROWS = sp.csr_matrix((RNG.random((80, 12)) < 0.3).astype(float))
FEATURES = RNG.normal(size=(80, 4)) / 4
OTHERS = RNG.normal(size=(80, 3)) / 4


def moments_of(features: np.ndarray) -> FeatureMoments:
    return FeatureMoments(np.asarray(ROWS.T @ features), features.T @ features)


def joint_precision(item_ridge: float, feature_ridge: float) -> np.ndarray:
    joined = np.hstack([ROWS.toarray(), FEATURES])
    ridges = np.r_[np.full(12, item_ridge), np.full(4, feature_ridge)]
    return np.linalg.inv(joined.T @ joined + np.diag(ridges))


def off_seen(scores: np.ndarray) -> np.ndarray:
    return scores[ROWS.toarray() == 0]


def test_it_is_ease_of_the_joined_matrix() -> None:
    precision = joint_precision(5.0, 2.0)
    weights = -precision / np.diagonal(precision)
    np.fill_diagonal(weights, 0.0)
    expected = (np.hstack([ROWS.toarray(), FEATURES]) @ weights)[:, :12]
    model = JointModel.fit(ROWS, [moments_of(FEATURES)], Weights(5.0, 1.0, (2.0,)))
    np.testing.assert_allclose(off_seen(model.scores(ROWS, [FEATURES])), off_seen(expected), atol=1e-9)


def test_it_is_ridge_of_the_joined_matrix() -> None:
    joined = np.hstack([ROWS.toarray(), FEATURES])
    solved = joint_precision(5.0, 2.0) @ joined.T @ ROWS.toarray()
    expected = (joined @ solved) / 5.0
    model = JointModel.fit(ROWS, [moments_of(FEATURES)], Weights(5.0, 0.0, (2.0,)))
    np.testing.assert_allclose(off_seen(model.scores(ROWS, [FEATURES])), off_seen(expected), atol=1e-9)


def test_features_that_count_nothing_leave_the_label_silo_alone() -> None:
    alone = JointModel(ItemSide(ROWS, 5.0), (), Weights(5.0, 1.0)).scores(ROWS)
    for weights in (Weights(5.0, 1.0, (2.0,), mixing=0.0), Weights(5.0, 1.0, (1e15,))):
        joint = JointModel.fit(ROWS, [moments_of(FEATURES)], weights).scores(ROWS, [FEATURES])
        np.testing.assert_allclose(joint, alone, atol=1e-9)


def test_several_silos_share_what_the_items_explain_and_no_more() -> None:
    items = ItemSide(ROWS, 5.0)
    shared = moments_of(FEATURES).cross.T @ items.inverse @ moments_of(OTHERS).cross
    both, ridges = np.hstack([FEATURES, OTHERS]), np.r_[np.full(4, 2.0), np.full(3, 7.0)]
    gram = both.T @ both + np.diag(ridges)
    gram[:4, 4:], gram[4:, :4] = shared, shared.T
    cross = np.asarray(ROWS.T @ both)
    precision = np.linalg.inv(np.block([[ROWS.T @ ROWS + 5.0 * np.eye(12), cross], [cross.T, gram]]))
    expected = -(np.hstack([ROWS.toarray(), both]) @ precision[:, :12]) / np.diagonal(precision)[:12]
    model = JointModel.fit(ROWS, [moments_of(FEATURES), moments_of(OTHERS)], Weights(5.0, 1.0, (2.0, 7.0)))
    np.testing.assert_allclose(model.scores(ROWS, [FEATURES, OTHERS]), expected, atol=1e-9)


def test_one_user_in_session_gets_the_scores_of_their_row() -> None:
    model = JointModel.fit(ROWS, [moments_of(FEATURES), moments_of(OTHERS)], Weights(5.0, 0.5, (2.0, 7.0)))
    many = model.scores(ROWS, [FEATURES, OTHERS])
    one = model.score(ROWS[3].indices, [FEATURES[3], OTHERS[3]])
    np.testing.assert_allclose(one, many[3], atol=1e-12)
    partly = model.score(ROWS[3].indices, [FEATURES[3], None])
    np.testing.assert_allclose(partly, model.scores(ROWS, [FEATURES, None])[3], atol=1e-12)
    assert not np.allclose(partly, one)
    np.testing.assert_allclose(model.score(ROWS[3].indices), model.scores(ROWS)[3], atol=1e-12)


def test_noise_that_makes_the_complement_indefinite_is_projected_away() -> None:
    noisy = FeatureMoments(moments_of(FEATURES).cross + 50 * RNG.normal(size=(12, 4)), np.eye(4) * 1e-3)
    side = FeatureSide(ItemSide(ROWS, 5.0), noisy, 10.0)
    assert (side.diagonal >= 0).all()
    scores = JointModel.fit(ROWS, [noisy], Weights(5.0, 1.0, (10.0,))).scores(ROWS, [FEATURES])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("cross", "gram"),
    [
        (np.ones((12, 4)), np.eye(3)),
        (np.ones(12), np.eye(1)),
        (np.full((12, 1), np.nan), np.eye(1)),
        (np.ones((12, 1)), np.full((1, 1), np.inf)),
    ],
)
def test_moments_that_do_not_fit_are_refused(cross: np.ndarray, gram: np.ndarray) -> None:
    with pytest.raises(JointModelError):
        FeatureMoments(cross, gram)


def test_moments_of_other_items_or_missing_ridges_are_refused() -> None:
    with pytest.raises(JointModelError, match="items"):
        JointModel.fit(ROWS, [FeatureMoments(np.ones((11, 2)), np.eye(2))], Weights(5.0, 1.0, (1.0,)))
    with pytest.raises(JointModelError, match="ridges"):
        JointModel.fit(ROWS, [moments_of(FEATURES)], Weights(5.0, 1.0))
    model = JointModel.fit(ROWS, [moments_of(FEATURES)], Weights(5.0, 1.0, (1.0,)))
    with pytest.raises(JointModelError, match="silos"):
        model.scores(ROWS, [FEATURES, OTHERS])


@pytest.mark.parametrize(
    "weights",
    [
        Weights(0.0, 1.0, (1.0,)),
        Weights(1.0, 2.0, (1.0,)),
        Weights(1.0, 1.0, (0.0,)),
        Weights(1.0, 1.0, (1.0,), mixing=1.5),
    ],
)
def test_impossible_weights_are_refused(weights: Weights) -> None:
    with pytest.raises(UsageError):
        JointModel.fit(ROWS, [moments_of(FEATURES)], weights)


def test_a_row_of_nan_is_a_person_of_whom_a_silo_gives_nothing() -> None:
    rng = np.random.default_rng(9)
    rows = sp.csr_matrix((rng.random((30, 6)) < 0.4).astype(float))
    features = rng.normal(size=(30, 2))
    moments = FeatureMoments(rows.T @ features, features.T @ features)
    model = JointModel.fit(rows, [moments], Weights(5.0, 0.5, (2.0,), 0.7))
    some = np.where(np.arange(30)[:, None] % 3 == 0, np.nan, features)
    scores = model.scores(rows, [some])
    assert np.array_equal(scores[0::3], model.scores(rows, [None])[0::3])
    given = np.arange(30) % 3 != 0
    assert np.array_equal(scores[given], model.scores(rows, [features])[given])
