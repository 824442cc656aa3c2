from __future__ import annotations

import numpy as np
import pytest

from silo.models.denoising import DenoiseSettings, denoise, denoise_diagonal


def low_rank(items: int = 80, rank: int = 3, seed: int = 0) -> np.ndarray:
    """A Gram of non-negative factors with a long tail of popularity."""
    rng = np.random.default_rng(seed)
    factors = rng.gamma(0.5, 1.0, (items, rank)) * (5 / np.sqrt(1 + np.arange(items)))[:, None]
    gram = factors @ factors.T
    np.fill_diagonal(gram, 1.5 * np.diagonal(gram) + 1)
    return gram


def noised(gram: np.ndarray, std: float, seed: int) -> np.ndarray:
    noise = np.triu(np.random.default_rng(seed).standard_normal(gram.shape) * std)
    return (gram + noise + np.triu(noise, 1).T).astype(np.float32)


def off_diagonal_error(factors: np.ndarray, gram: np.ndarray) -> float:
    off = ~np.eye(len(gram), dtype=bool)
    return float(((factors @ factors.T - gram)[off] ** 2).mean())


@pytest.mark.parametrize("std", [0.05, 0.5, 2.0])
def test_denoising_removes_most_of_the_noise(std: float) -> None:
    gram = low_rank()
    errors = [
        off_diagonal_error(denoise(noised(gram, std, seed), std, rank=16).factors, gram) for seed in range(3)
    ]
    assert np.mean(errors) < 0.3 * std**2


def test_pure_noise_shrinks_to_nothing() -> None:
    noise = noised(np.zeros((80, 80)), 1.0, 3)
    factors = denoise(noise, 1.0, rank=16).factors
    assert off_diagonal_error(factors, np.zeros((80, 80))) < 0.01


def test_the_noise_that_is_declared_is_believed() -> None:
    noisy = noised(low_rank(), 0.3, 1)
    explained = [(denoise(noisy, std, rank=16).factors ** 2).sum() for std in (0.3, 3.0, 30.0)]
    assert explained[0] > 1.02 * explained[1]
    assert explained[1] > 2 * explained[2]


def test_the_missing_diagonal_must_be_imputed() -> None:
    gram = low_rank()
    imputed, left_empty = (
        denoise(noised(gram, 0.3, 1), 0.3, rank=16, settings=DenoiseSettings(max_communality=share))
        for share in (0.95, 0.0)
    )
    assert off_diagonal_error(imputed.factors, gram) < 0.1 * off_diagonal_error(left_empty.factors, gram)


def test_more_rank_than_needed_does_no_harm() -> None:
    gram = low_rank()
    noisy = noised(gram, 0.5, 1)
    exact, generous = (off_diagonal_error(denoise(noisy, 0.5, rank=rank).factors, gram) for rank in (3, 20))
    assert generous < 1.3 * exact


def test_the_input_is_left_alone_and_the_output_repeats() -> None:
    noisy = noised(low_rank(), 0.5, 1)
    before = noisy.copy()
    first, second = denoise(noisy, 0.5, rank=8), denoise(noisy, 0.5, rank=8)
    np.testing.assert_array_equal(noisy, before)
    np.testing.assert_array_equal(first.factors, second.factors)


def test_the_diagonal_is_the_denoised_popularity_not_the_noisy_one() -> None:
    gram = low_rank()
    noisy = noised(gram, 3.0, 1)
    found = denoise(noisy, 3.0, rank=8).diagonal
    truth = np.diagonal(gram)
    assert (found >= 0).all()
    assert ((found - truth) ** 2).mean() < ((np.diagonal(noisy) - truth) ** 2).mean()


@pytest.mark.parametrize("items", [2, 3, 5])
def test_tiny_catalogues_work(items: int) -> None:
    model = denoise(noised(np.eye(items) + 1, 0.3, 0), 0.3, rank=64)
    assert model.factors.shape[0] == items
    assert np.isfinite(model.factors).all()


def test_fewer_steps_are_a_setting() -> None:
    noisy = noised(low_rank(), 0.5, 1)
    short = denoise(noisy, 0.5, rank=8, settings=DenoiseSettings(steps=2))
    assert not np.allclose(short.factors, denoise(noisy, 0.5, rank=8).factors)


def test_a_diagonal_with_much_noise_is_pulled_together() -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([np.zeros(150), rng.gamma(2, 20, 50)])
    noisy = truth + rng.standard_normal(200) * 10
    found = denoise_diagonal(noisy, 10.0)
    assert (found >= 0).all()
    assert ((found - truth) ** 2).mean() < 0.6 * ((noisy - truth) ** 2).mean()


def test_a_diagonal_with_little_noise_stays() -> None:
    truth = np.linspace(1, 50, 40)
    np.testing.assert_allclose(denoise_diagonal(truth, 1e-3), truth, rtol=0.2)


def test_an_all_noise_diagonal_is_finite() -> None:
    found = denoise_diagonal(np.array([-5.0, -1.0, -2.0]), 1.0)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
