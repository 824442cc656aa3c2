from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.plans.price import RoundShape, weight_at
from silo.models import gate
from silo.models.base import Family, user_weights
from silo.models.denoising import DenoisedGram, denoise
from silo.models.item_graph import (
    ItemGraph,
    ItemGraphSettings,
    exact_ease,
    factored_ease,
    fit,
    score_scale,
    symmetric_gram,
    triangle_size,
    triangle_sums,
)
from tests.contracts.family_contract import (
    FamilyContract,
    make_catalogue,
    make_interactions,
    random_histories,
)


def taste_gram(items: int = 60, users: int = 1500, seed: int = 0) -> tuple[np.ndarray, sp.csr_matrix]:
    """Histories of three tastes and their normalised Gram."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, 3, users)
    odds = np.where(np.arange(items) % 3 == taste[:, None], 0.3, 0.03) / (1 + np.arange(items) / items)
    histories = sp.csr_matrix((rng.random((users, items)) < odds).astype(np.float64))
    weights = user_weights("item-graph", 1024, np.diff(histories.indptr))
    return symmetric_gram(triangle_sums(histories, weights), 1024), histories


def noised(gram: np.ndarray, std: float, seed: int) -> np.ndarray:
    noise = np.triu(np.random.default_rng(seed).standard_normal(gram.shape) * std)
    return (gram + noise + np.triu(noise, 1).T).astype(np.float32)


class TestItemGraph(FamilyContract):
    model: ClassVar = {"family": "item-graph", "rank": 8}

    def test_no_noise_gives_exact_ease(self, family: Family, shape: RoundShape) -> None:
        exact = ItemGraph(family.plan, family.catalogue, noise_std=0.0)
        sums = self.contribution(family, shape, random_histories(0))
        state = exact.absorb({}, sums, 0, shape, 4)
        model = exact.finish(state)
        expected = exact_ease(state["gram"])
        np.testing.assert_array_equal(model.left, expected.left)

    def test_the_gate_draws_from_the_aggregate_alone(self, family: Family, shape: RoundShape) -> None:
        sums = self.contribution(family, shape, random_histories(0, num_users=400))
        model = family.finish(family.absorb({}, sums, 0, shape, 4))
        seed = int.from_bytes(hashlib.sha256(sums.astype("<i8").tobytes()).digest(), "big")
        by_seed = [
            fit(
                symmetric_gram(sums, shape.grid),
                family.total_noise_std(shape, 4) / shape.grid,
                family.catalogue.features(),
                rng=np.random.Generator(np.random.PCG64(value)),
                rank=8,
            ).metadata["gate_z"]
            for value in (seed, seed + 1)
        ]
        assert model.metadata["gate_z"] == by_seed[0] != by_seed[1]

    def test_pure_noise_falls_back_to_popularity(self, family: Family, shape: RoundShape) -> None:
        rng = np.random.default_rng(0)
        noise = np.rint(rng.standard_normal(shape.values) * family.total_noise_std(shape, 4))
        model = family.finish(family.absorb({}, noise.astype(np.int64), 0, shape, 4))
        assert model.is_fallback
        assert model.metadata["gate"] == "popularity"
        histories = make_interactions(random_histories(0), family.catalogue).matrix()
        np.testing.assert_array_equal(model.scores(histories)[0], model.popularity)


# ── the release ──────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 25))
@settings(max_examples=30, deadline=None)
def test_triangle_sums_are_exactly_the_weighted_gram(seed: int, items: int, users: int) -> None:
    rng = np.random.default_rng(seed)
    dense = (rng.random((users, items)) < rng.random()).astype(np.int64)
    weights = rng.integers(0, 10_000, users)
    sums = triangle_sums(sp.csr_matrix(dense, dtype=np.float64), weights)
    expected = (dense.T * weights) @ dense
    np.testing.assert_array_equal(sums, expected[np.triu_indices(items)])
    np.testing.assert_array_equal(symmetric_gram(sums, 1), expected.astype(np.float32))


def test_triangle_sums_span_several_blocks_exactly() -> None:
    rng = np.random.default_rng(0)
    histories = sp.random_array((80, 600), density=0.05, rng=rng, format="csr")
    histories = sp.csr_matrix((histories > 0).astype(np.float64))
    weights = rng.integers(1, 8192, 80)
    dense = histories.toarray().astype(np.int64)
    expected = (dense.T * weights) @ dense
    sums = triangle_sums(histories, weights)
    assert len(sums) == triangle_size(600)
    np.testing.assert_array_equal(sums, expected[np.triu_indices(600)])
    np.testing.assert_array_equal(symmetric_gram(sums, 1), expected.astype(np.float32))


def test_sums_beyond_the_exact_floats_stay_exact() -> None:
    histories = sp.csr_matrix(np.ones((3, 2)))
    weights = np.array([2**53, 1, 0])
    assert triangle_sums(histories, weights).tolist() == [2**53 + 1] * 3


@pytest.mark.parametrize("length", [1, 2, 7, 200, 5000])
def test_a_weight_is_the_largest_that_keeps_the_norm(length: int) -> None:
    grid = 4096
    (weight,) = user_weights("item-graph", grid, np.array([length]))
    pairs = length * (length + 1) // 2
    assert weight == weight_at("item-graph", grid, length)
    assert weight**2 * pairs <= grid**2 < (weight + 1) ** 2 * pairs


def test_a_user_without_history_has_no_weight() -> None:
    assert user_weights("item-graph", 4096, np.array([0, 1])).tolist() == [0, 4096]


# ── post-processing ──────────────────────────────────────────────────────────────────────────────────────


def test_exact_ease_is_the_closed_form() -> None:
    gram, _ = taste_gram()
    items = len(gram)
    ridge = 0.7 * float(np.diagonal(gram).mean())
    precision = np.linalg.inv(gram.astype(np.float64) + ridge * np.eye(items))
    weights = np.eye(items) - precision / np.diagonal(precision)
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(exact_ease(gram, 0.7).left, weights, atol=1e-5)


def test_factored_ease_equals_ease_of_the_same_dense_gram() -> None:
    rng = np.random.default_rng(1)
    factors = rng.standard_normal((30, 4))
    diagonal = (factors**2).sum(1) * 1.1 + rng.random(30)
    constants = ItemGraphSettings()
    left, right = factored_ease(DenoisedGram(factors, diagonal), constants)
    dense = factors @ factors.T
    np.fill_diagonal(dense, diagonal)
    precision = np.linalg.inv(dense + constants.ridge * diagonal.mean() * np.eye(30))
    expected = np.eye(30) - precision / np.diagonal(precision)
    off = ~np.eye(30, dtype=bool)
    np.testing.assert_allclose((left @ right.T)[off], expected[off], atol=1e-9)


def test_scores_are_discounted_by_popularity_and_the_rarest_are_bounded() -> None:
    scale = score_scale(np.array([4.0, 1.0, 0.0, 3.0]), 0.5)
    np.testing.assert_allclose(scale, [2**-0.5, 2**0.5, 500**0.5, 1.5**-0.5])
    np.testing.assert_array_equal(score_scale(np.array([4.0, 0.0]), 0.0), [1.0, 1.0])


def test_the_discount_reaches_the_model_that_ships() -> None:
    gram, _ = taste_gram()
    noisy = noised(gram, 1.0, 1)
    plain, discounted = (
        fit(noisy, 1.0, None, rng=np.random.default_rng(0), rank=8, settings=constants)
        for constants in (
            ItemGraphSettings(popularity_discount=0.0),
            ItemGraphSettings(popularity_discount=0.5),
        )
    )
    assert plain.right is not None
    assert discounted.right is not None
    scale = score_scale(plain.popularity.astype(np.float64), 0.5)
    np.testing.assert_allclose(discounted.right, plain.right * scale[:, None], rtol=1e-4)
    assert plain.metadata["gate_z"] == discounted.metadata["gate_z"]


def test_taste_survives_noise_and_beats_popularity() -> None:
    gram, histories = taste_gram()
    model = fit(noised(gram, 1.0, 1), 1.0, None, rng=np.random.default_rng(0), rank=8)
    assert model.metadata["gate"] == "model"
    scores = model.scores(histories)
    same = (
        np.arange(60) % 3
        == np.argmax(np.stack([histories[:, group::3].sum(1).A1 for group in range(3)], axis=1), axis=1)[
            :, None
        ]
    )
    assert scores[same].mean() > scores[~same].mean()
    best = np.argsort(-scores, axis=1)[:, :5]
    assert np.take_along_axis(same, best, axis=1).mean() > 0.9


def test_the_gate_equals_its_dense_definition() -> None:
    gram, _ = taste_gram(items=25)
    noisy, std = noised(gram, 2.0, 2), 2.0
    constants = ItemGraphSettings()

    def learn(train: np.ndarray, noise_std: float) -> tuple[DenoisedGram, np.ndarray, np.ndarray]:
        model = denoise(train, noise_std, rank=4)
        return model, *factored_ease(model, constants)

    z = gate.advantage(noisy, std, learn, np.random.default_rng(3))

    draws = np.random.default_rng(3).standard_normal((25, 25), dtype=np.float32) * np.float32(std)
    thinning = np.triu(draws) + np.triu(draws, 1).T
    train, test = noisy + thinning, noisy - thinning
    model, left, right = learn(train, std * np.sqrt(2))
    weights = left @ right.T
    np.fill_diagonal(weights, 0)
    popular = np.tile(model.diagonal, (25, 1))
    np.fill_diagonal(popular, 0)
    popular *= max(float((popular * train).sum() / (popular * (train @ popular)).sum()), 0)
    loss = (np.eye(25) - weights) @ (np.eye(25) - weights).T
    loss -= (np.eye(25) - popular) @ (np.eye(25) - popular).T
    variance = 2 * std**2 * (2 * (loss**2).sum() - (np.diagonal(loss) ** 2).sum())
    assert z == pytest.approx(-float((loss * test).sum()) / np.sqrt(variance), rel=1e-3)


def test_attributes_help_where_the_noise_is_strong() -> None:
    gram, _ = taste_gram(items=90, users=600)
    features = np.eye(3)[np.arange(90) % 3]
    off = ~np.eye(90, dtype=bool)
    error = {}
    for name, table in (("with", features), ("without", None)):
        errors = []
        for seed in range(3):
            model = denoise(noised(gram, 3.0, seed), 3.0, table, rank=8)
            errors.append((((model.factors @ model.factors.T) - gram)[off] ** 2).mean())
        error[name] = np.mean(errors)
    assert error["with"] < error["without"]


def test_a_catalogue_without_attributes_is_fine() -> None:
    assert make_catalogue(3).features().shape == (3, 3)
    gram, _ = taste_gram(items=12, users=300)
    model = denoise(noised(gram, 1.0, 0), 1.0, np.zeros((12, 0)), rank=3)
    assert np.isfinite(model.factors).all()
