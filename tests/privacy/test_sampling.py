from __future__ import annotations

import math

import numpy as np
import pytest

from privacy.randomness import unsafe_seeded_words
from privacy.sampling import SampleRateError, poisson_sample

NUM_USERS = 200_000


@pytest.mark.parametrize("rate", [1e-3, 0.05, 0.5, 0.999])
def test_each_user_joins_with_the_sample_rate(rate: float) -> None:
    users = poisson_sample(NUM_USERS, rate, unsafe_source=unsafe_seeded_words(1))
    spread = 5 * math.sqrt(NUM_USERS * rate * (1 - rate))
    assert abs(users.size - NUM_USERS * rate) < spread
    assert np.array_equal(users, np.unique(users))
    assert users.dtype == np.int64
    assert abs(users.mean() / NUM_USERS - 0.5) < 5 / math.sqrt(12 * users.size)


def test_coins_of_two_rounds_are_independent() -> None:
    source = unsafe_seeded_words(2)
    first, second = (set(poisson_sample(NUM_USERS, 0.1, unsafe_source=source).tolist()) for _ in range(2))
    assert len(first & second) == pytest.approx(NUM_USERS * 0.01, rel=0.12)


def test_coins_come_from_the_operating_system() -> None:
    rounds = [poisson_sample(1000, 0.5).tobytes() for _ in range(5)]
    assert len(set(rounds)) == 5


def test_rate_one_takes_everybody() -> None:
    assert poisson_sample(5, 1.0).tolist() == [0, 1, 2, 3, 4]


def test_an_empty_batch_is_a_batch() -> None:
    assert poisson_sample(0, 0.5).shape == (0,)
    assert poisson_sample(100, 1e-30).shape == (0,)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0001, math.nan])
def test_a_rate_that_is_no_probability_is_refused(rate: float) -> None:
    with pytest.raises(SampleRateError):
        poisson_sample(10, rate)
