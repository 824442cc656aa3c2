"""The one noised release of everybody's vector: sensitivity, noise, event."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from privacy.embedding import GRID, EmbeddingError, EmbeddingNoise
from privacy.events import SAMPLER, GaussianEvent, PoissonSampledGaussianEvent
from privacy.noise import NoiseError, RandomnessReuseError, unsafe_seeded_words

NO_NOISE = 1e-9
"""So little that the draw is 0: what remains are the integers that are summed."""


def event(noise_multiplier: float) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=noise_multiplier, sampler=SAMPLER)


def people_of(num_people: int, dimensions: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_people, dimensions))


def integers(vectors: np.ndarray, slots: np.ndarray, spine_slots: int) -> np.ndarray:
    return EmbeddingNoise(event(NO_NOISE)).release(vectors, slots, spine_slots).values.astype(np.int64)


@pytest.mark.parametrize("scale", [1e-9, 0.3, 1.0, 1e6, math.inf, math.nan])
def test_one_person_more_moves_the_table_by_at_most_one_and_nobody_else(scale: float) -> None:
    vectors, slots = people_of(20), np.random.default_rng(1).permutation(60)[:20]
    vectors[7] *= scale
    others = np.delete(np.arange(20), 7)
    moved = integers(vectors, slots, 60) - integers(vectors[others], slots[others], 60)
    assert np.flatnonzero(moved.any(axis=1)).tolist() in ([], [slots[7]])
    assert np.square(moved).sum() <= GRID**2


@pytest.mark.parametrize("degree", [1, 5])
def test_a_node_that_leaves_moves_its_own_slot_and_those_of_its_friends(degree: int) -> None:
    before = np.eye(1 + degree, 4) + np.eye(4)[3]
    after = -before[1:]
    moved = integers(before, np.arange(1 + degree), 9) - integers(after, np.arange(1, 1 + degree), 9)
    bound = GRID * math.sqrt(1 + 4 * degree)
    assert 0.999 * bound < np.linalg.norm(moved) <= bound
    noise = EmbeddingNoise(event(2.0), max_degree=degree)
    table = noise.release(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), 9000).vectors
    assert table.std() == pytest.approx(2.0 * math.sqrt(1 + 4 * degree), rel=0.02)


def test_the_bound_is_reached_so_less_noise_would_be_too_little() -> None:
    vectors = np.eye(1, 4) * 5.0
    assert np.linalg.norm(integers(vectors, np.array([2]), 3)) > GRID * (1 - 1e-4)


def test_slots_without_a_person_hold_noise_alone_and_of_the_same_size() -> None:
    noise = EmbeddingNoise(event(2.0))
    vectors, slots = people_of(300, 8), np.arange(300) * 3
    table = noise.release(vectors, slots, 4000, unsafe_source=unsafe_seeded_words(3)).vectors
    empty = np.setdiff1d(np.arange(4000), slots)
    assert stats.kstest(table[empty].ravel() / 2.0, "norm").pvalue > 1e-3
    clipped = integers(vectors, np.arange(300), 300) / GRID
    assert stats.kstest((table[slots] - clipped).ravel() / 2.0, "norm").pvalue > 1e-3


def test_a_person_without_a_slot_leaves_nothing() -> None:
    vectors, slots = people_of(3), np.array([1, -1, 0])
    alone = integers(vectors[[0, 2]], np.array([1, 0]), 4)
    assert (integers(vectors, slots, 4) == alone).all()


@pytest.mark.parametrize("slots", [[0, 4], [1, 1], [0]])
def test_slots_that_are_none_of_the_spine_are_refused(slots: list[int]) -> None:
    with pytest.raises(EmbeddingError):
        EmbeddingNoise(event(1.0)).release(people_of(2), np.array(slots), 4)


def test_the_noise_is_drawn_once() -> None:
    noise = EmbeddingNoise(event(1.0))
    noise.release(people_of(2), np.arange(2), 4)
    with pytest.raises(RandomnessReuseError):
        noise.release(people_of(2), np.arange(2), 4)


def test_much_noise_is_cut_to_what_travels() -> None:
    table = EmbeddingNoise(event(16_000.0)).release(people_of(1), np.array([0]), 5000)
    assert table.values.dtype == np.int32
    assert np.abs(table.values.astype(np.int64)).max() == 2**31 - 1


def test_too_much_noise_is_refused() -> None:
    with pytest.raises(NoiseError):
        EmbeddingNoise(event(1e5))


@pytest.mark.parametrize("rate", [0.001, 0.5])
def test_an_event_of_a_sample_is_refused(rate: float) -> None:
    sampled = PoissonSampledGaussianEvent(
        noise_multiplier=1.0, sample_rate=rate, max_silos_per_user=1, sampler=SAMPLER
    )
    with pytest.raises(NoiseError, match="everybody"):
        EmbeddingNoise(sampled)


def test_the_event_is_the_one_that_was_reserved() -> None:
    assert EmbeddingNoise(event(1.5)).release(people_of(2), np.arange(2), 4).event == event(1.5)
