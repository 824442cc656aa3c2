from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st

from privacy.accounting import Spending
from privacy.budget import ZcdpFilter
from privacy.calibration import calibrate_noise_multiplier
from privacy.events import SAMPLER, EventCount, GaussianEvent
from privacy.moments import (
    BasisError,
    GramNoise,
    NoisedGram,
    feature_events,
    integer_gram,
    positive_gram,
    private_basis,
    public_basis,
)
from privacy.noise import NoiseError, RandomnessReuseError, unsafe_seeded_words

DELTA = 1e-5


def event(noise_multiplier: float) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=noise_multiplier, sampler=SAMPLER)


def rows_of(num_people: int, num_columns: int, seed: int = 0) -> np.ndarray:
    """Rows of norm 1 with three clear directions."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_people, 3)) @ rng.normal(size=(3, num_columns))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("epsilon", [0.5, 4.0, 8.0])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_both_events_together_cost_the_epsilon_by_two_accountants(epsilon: float, share: float) -> None:
    whole = calibrate_noise_multiplier(epsilon, DELTA, ZcdpFilter(), releases=1)
    events = feature_events(whole, basis_share=share)
    rho = sum(1 / (2 * one.noise_multiplier**2) for one in events)
    assert rho == pytest.approx(1 / (2 * whole**2), rel=1e-4)
    spent = Spending.of([EventCount(one, 1) for one in events], ZcdpFilter()).epsilon(DELTA)
    assert epsilon * 0.999 < spent <= epsilon

    second = PLDAccountant()
    second.compose(ComposedDpEvent([GaussianDpEvent(one.noise_multiplier) for one in events]))
    assert 0.7 * epsilon < second.get_epsilon(DELTA) <= epsilon


@pytest.mark.parametrize(("multiplier", "share"), [(0.0, 0.3), (1.0, 0.0), (1.0, 1.0), (math.nan, 0.3)])
def test_impossible_shares_are_refused(multiplier: float, share: float) -> None:
    with pytest.raises(NoiseError):
        feature_events(multiplier, basis_share=share)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(8, 14))
def test_one_row_moves_the_triangle_by_at_most_one(row: list[float], bits: int) -> None:
    gram = integer_gram(np.array([row]), bits)
    triangle = gram[np.triu_indices(len(row))]
    assert sum(int(value) ** 2 for value in triangle) <= 4 ** (2 * bits)


def test_a_row_adds_itself_and_nothing_else() -> None:
    rows = rows_of(3000, 20)
    with_one, without = integer_gram(rows, 14), integer_gram(rows[:-1], 14)
    np.testing.assert_array_equal(with_one - without, integer_gram(rows[-1:], 14))
    np.testing.assert_allclose(with_one / 4.0**14, rows.T @ rows, atol=3000 * 20 * 2.0**-13)


def test_rows_that_are_no_numbers_count_as_nobody() -> None:
    assert not integer_gram(np.array([[np.nan, 1.0], [np.inf, 0.0]]), 14).any()


def test_noise_of_a_gram_is_as_promised_and_symmetric() -> None:
    noise = GramNoise(event(1.2))
    gram = noise.noised_gram(np.zeros((1, 120)), unsafe_source=unsafe_seeded_words(2))
    np.testing.assert_array_equal(gram.values, gram.values.T)
    triangle = gram.values[np.triu_indices(120)]
    assert triangle.std() == pytest.approx(1.2, rel=0.04)
    assert np.diagonal(gram.values).std() == pytest.approx(1.2, rel=0.25)
    assert (gram.std, gram.event) == (1.2, event(1.2))


def test_a_node_of_a_graph_takes_its_rows_times_the_noise() -> None:
    gram = GramNoise(event(1.2), rows_per_person=6).noised_gram(np.zeros((1, 120)))
    assert gram.values[np.triu_indices(120)].std() == pytest.approx(7.2, rel=0.05)
    assert gram.event == event(1.2)
    with pytest.raises(NoiseError):
        GramNoise(event(1.2), rows_per_person=0)


@given(st.integers(0, 2**20), st.integers(2, 12))
def test_a_friend_who_leaves_moves_anothers_row_by_at_most_one(bits: int, num_friends: int) -> None:
    row = np.ones(num_friends)
    less = row.copy()
    less[bits % num_friends] = 0.0
    one, other = (friends / np.linalg.norm(friends) for friends in (row, less))
    assert np.linalg.norm(one - other) <= 1.0
    assert np.linalg.norm(np.outer(one, one) - np.outer(other, other)) <= 1.0


def test_noise_of_one_gram_serves_no_second() -> None:
    noise = GramNoise(event(1.0))
    noise.noised_gram(rows_of(5, 4))
    with pytest.raises(RandomnessReuseError):
        noise.noised_gram(rows_of(5, 4))


def test_a_large_multiplier_takes_a_coarser_grid_and_keeps_its_promise() -> None:
    gram = GramNoise(event(1000.0)).noised_gram(np.zeros((1, 60)))
    assert gram.values[np.triu_indices(60)].std() == pytest.approx(1000.0, rel=0.08)
    with pytest.raises(NoiseError):
        GramNoise(event(1e6))


def test_a_private_basis_finds_what_stands_out() -> None:
    rows = rows_of(4000, 30)
    noised = GramNoise(event(1.0)).noised_gram(rows)
    features = private_basis(noised, 3)
    projected = features.project(rows)
    assert np.square(projected).sum() > 0.98 * len(rows)
    np.testing.assert_allclose(features.basis.T @ features.basis, np.eye(3), atol=1e-9)
    assert (np.linalg.norm(projected, axis=1) <= 1 + 1e-9).all()
    np.testing.assert_allclose(features.gram, projected.T @ projected, atol=12)
    assert features.events == (event(1.0),)


def test_the_features_gram_is_no_second_look_at_rows() -> None:
    rows = rows_of(200, 10)
    noised = GramNoise(event(1.0)).noised_gram(rows)
    one, again = private_basis(noised, 3), private_basis(noised, 3)
    np.testing.assert_array_equal(one.gram, again.gram)
    basis = one.basis
    expected = positive_gram(basis.T @ noised.values @ basis)
    np.testing.assert_array_equal(one.gram, expected)


def test_public_vectors_pay_for_their_gram_only() -> None:
    rows = rows_of(4000, 30)
    vectors = np.random.default_rng(3).normal(size=(30, 4))
    features = public_basis(vectors, rows, GramNoise(event(1.0)))
    projected = features.project(rows)
    assert features.events == (event(1.0),)
    np.testing.assert_allclose(features.gram, projected.T @ projected, atol=12)
    with pytest.raises(BasisError, match="dependent"):
        public_basis(np.ones((30, 2)), rows, GramNoise(event(1.0)))


def test_a_noised_gram_is_made_positive_or_refused() -> None:
    indefinite = np.array([[1.0, 2.0], [2.0, 1.0]])
    projected = positive_gram(indefinite)
    assert np.linalg.eigvalsh(projected).min() >= -1e-12
    with pytest.raises(BasisError, match="1 features have no positive length"):
        positive_gram(np.array([[1.0, 0.0], [0.0, -0.1]]))
    nothing = NoisedGram(-np.eye(4), 1.0, event(1.0))
    with pytest.raises(BasisError):
        private_basis(nothing, 2)


@pytest.mark.parametrize("num_features", [0, 11])
def test_impossible_numbers_of_features_are_refused(num_features: int) -> None:
    with pytest.raises(BasisError):
        private_basis(GramNoise(event(1.0)).noised_gram(rows_of(5, 10)), num_features)
