from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chisquare

from privacy import noise as noise_module
from privacy.events import GaussianEvent
from privacy.exact import LazyUniform, exp_bracket
from privacy.noise import (
    DiscreteGaussian,
    NoiseError,
    NoiseShare,
    RandomnessReuseError,
    WordSource,
    unsafe_seeded_words,
)

Integers = npt.NDArray[np.int64]
NUM_DRAWS = 400_000
PROMISE = GaussianEvent(noise_multiplier=2.0, sampler="discrete-gaussian/v1")


def exact_pmf(sigma: float, reach: int) -> npt.NDArray[np.float64]:
    support = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (support / sigma) ** 2)
    return weights / weights.sum()


def fit(draws: Integers, sigma: float) -> float:
    """p-value of a chi-square test against the exact pmf, in bins of at least 20 expected draws."""
    reach = math.ceil(9 * sigma) + 9
    pmf = exact_pmf(sigma, reach)
    assert np.abs(draws).max() <= reach
    observed = np.bincount(draws + reach, minlength=pmf.size)
    width = max(1, round(sigma / 8))
    edges = np.arange(0, pmf.size, width)
    expected, found = np.add.reduceat(pmf, edges) * draws.size, np.add.reduceat(observed, edges)
    common = expected >= 20
    expected = np.append(expected[common], expected[~common].sum())
    found = np.append(found[common], found[~common].sum())
    return float(chisquare(found, expected * found.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 1.7, 4.0, 25.5, 100.0, 8192.5, 20000.0])
def test_draws_follow_the_exact_pmf(sigma: float) -> None:
    draws = DiscreteGaussian(sigma).sample(NUM_DRAWS, unsafe_seeded_words(round(10 * sigma)))
    assert draws.dtype == np.int64
    assert fit(draws, sigma) > 1e-4


def rounded_gaussian(sigma: float) -> Integers:
    return np.rint(np.random.default_rng(0).normal(0, sigma, NUM_DRAWS)).astype(np.int64)


def zero_counted_twice(sigma: float) -> Integers:
    draws = DiscreteGaussian(sigma).sample(NUM_DRAWS, unsafe_seeded_words(1))
    return np.concatenate([draws, draws[draws == 0]])


def two_per_cent_too_little(sigma: float) -> Integers:
    return DiscreteGaussian(0.98 * sigma).sample(NUM_DRAWS, unsafe_seeded_words(2))


def cut_at_three_sigma(sigma: float) -> Integers:
    draws = DiscreteGaussian(sigma).sample(NUM_DRAWS, unsafe_seeded_words(3))
    return draws[np.abs(draws) <= 3 * sigma]


def shifted_by_a_twentieth_of_sigma(sigma: float) -> Integers:
    draws = DiscreteGaussian(sigma).sample(NUM_DRAWS, unsafe_seeded_words(4))
    return draws + (np.random.default_rng(0).random(NUM_DRAWS) < 0.05 * sigma)


@pytest.mark.parametrize(
    "sabotaged",
    [
        rounded_gaussian,
        zero_counted_twice,
        two_per_cent_too_little,
        cut_at_three_sigma,
        shifted_by_a_twentieth_of_sigma,
    ],
)
def test_a_sabotaged_sampler_is_caught(sabotaged: Callable[[float], Integers]) -> None:
    assert fit(sabotaged(1.0), 1.0) < 1e-9


def test_a_sampler_without_its_rejection_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept_all(self: DiscreteGaussian, magnitude: Integers, *_: object) -> npt.NDArray[np.bool_]:
        return np.ones(magnitude.shape, dtype=bool)

    monkeypatch.setattr(DiscreteGaussian, "_accept", accept_all)
    draws = DiscreteGaussian(4.0).sample(NUM_DRAWS, unsafe_seeded_words(5))
    assert fit(draws[np.abs(draws) < 40], 4.0) < 1e-9


@pytest.mark.parametrize("sigma", [4.0, 150.0, 11000.0])
def test_variance_mean_and_independence(sigma: float) -> None:
    draws = DiscreteGaussian(sigma).sample(1_000_000, unsafe_seeded_words(6)) / sigma
    assert abs(draws.mean()) < 5e-3
    assert draws.var() == pytest.approx(1, abs=8e-3)
    assert abs(np.mean(draws[1:] * draws[:-1])) < 5e-3
    assert np.mean(draws**4) == pytest.approx(3, abs=0.06)
    reach = math.ceil(9 * sigma)
    beyond = np.abs(np.arange(-reach, reach + 1)) > 3 * sigma
    assert np.mean(np.abs(draws) > 3) == pytest.approx(exact_pmf(sigma, reach)[beyond].sum(), rel=0.12)


def test_no_draw_depends_on_the_size_asked_for() -> None:
    assert DiscreteGaussian(9.0).sample(0, unsafe_seeded_words(0)).shape == (0,)
    for size in (1, 7, 40_000):
        assert DiscreteGaussian(9.0).sample(size, unsafe_seeded_words(0)).shape == (size,)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 30.0])
def test_the_tail_bound_is_a_bound_and_not_a_bad_one(sigma: float) -> None:
    reach = math.ceil(40 * sigma)
    log_weights = -0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2
    log_total = np.logaddexp.reduce(log_weights)
    for bound in np.linspace(0, 30 * sigma, 200):
        beyond = log_weights[np.abs(np.arange(-reach, reach + 1)) > bound]
        exact = float(np.logaddexp.reduce(beyond) - log_total)
        claimed = DiscreteGaussian(sigma).log_tail_probability(float(bound))
        assert exact - 1e-9 <= claimed <= 0
        assert claimed <= exact + math.log(2) + 2 + 2 * bound / sigma**2
    assert DiscreteGaussian(sigma).log_tail_probability(-1.0) == 0
    assert DiscreteGaussian(sigma).log_tail_probability(50 * sigma) < -1200


def test_comparisons_in_doubt_are_decided_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a margin that sends many comparisons to rational arithmetic, every draw stays the same."""
    usual = DiscreteGaussian(37.7).sample(3000, unsafe_seeded_words(7))
    monkeypatch.setattr(noise_module, "_MARGIN", 0.03)
    assert np.array_equal(DiscreteGaussian(37.7).sample(3000, unsafe_seeded_words(7)), usual)


@pytest.mark.parametrize(
    "exponent", [Fraction(0), Fraction(1, 3), Fraction(1), Fraction(31, 7), Fraction(44)]
)
def test_brackets_enclose_the_exponential_and_close_in(exponent: Fraction) -> None:
    widths = []
    for terms in (12, 24, 48):
        lower, upper = exp_bracket(exponent, terms)
        assert float(lower) * (1 - 1e-14) <= math.exp(-exponent) <= float(upper) * (1 + 1e-14)
        widths.append(upper - lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < Fraction(1, 2**150)


@pytest.mark.parametrize("exponent", [Fraction(1, 3), Fraction(1), Fraction(22, 7)])
@pytest.mark.parametrize("seed", range(6))
def test_a_tie_in_64_bits_is_decided_by_the_next_64(exponent: Fraction, seed: int) -> None:
    digits = math.floor(exp_bracket(exponent, 96)[0] * (1 << 128))
    first, second = divmod(digits, 1 << 64)
    uniform = LazyUniform(first, unsafe_seeded_words(seed))
    assert uniform.is_below_exp(exponent) == (unsafe_seeded_words(seed).word() < second)
    assert LazyUniform(first - 1, unsafe_seeded_words(seed)).is_below_exp(exponent)
    assert not LazyUniform(first + 1, unsafe_seeded_words(seed)).is_below_exp(exponent)


def test_every_number_is_below_one() -> None:
    assert LazyUniform((1 << 64) - 1, unsafe_seeded_words(0)).is_below_exp(Fraction(0))


@pytest.mark.parametrize("seed", range(8))
def test_geometric_counts_at_their_thresholds(seed: int) -> None:
    first, second = divmod(math.floor(exp_bracket(Fraction(1), 96)[0] * (1 << 128)), 1 << 64)

    def count(word: int) -> int:
        words = np.array([word], dtype=np.uint64)
        return int(noise_module._geometric(words, unsafe_seeded_words(seed))[0])

    assert [count(first - 1), count(first + 1), count((1 << 64) - 1), count(2)] == [1, 0, 0, 43]
    assert count(first) == int(unsafe_seeded_words(seed).word() < second)


def test_a_word_of_zeros_does_not_end_the_tail() -> None:
    words = np.zeros(64, dtype=np.uint64)
    counts = noise_module._geometric(words, unsafe_seeded_words(0))
    assert counts.min() == 44
    assert counts.max() > 45


def test_offsets_below_a_bound_are_uniform_where_they_are_fair() -> None:
    offset, is_fair = noise_module._bounded(unsafe_seeded_words(8).words(300_000), 10)
    assert offset.min() == 0
    assert offset.max() == 9
    assert chisquare(np.bincount(offset[is_fair])).pvalue > 1e-4
    # 2^32 = 4 · (2^30 - 1) + 4: nearly every offset of that range has four words, and none may have five.
    _, is_fair = noise_module._bounded(np.arange(0, 1 << 20, dtype=np.uint64), (1 << 30) + 1)
    assert is_fair.mean() < 1


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2.0**31])
def test_impossible_sigmas_are_refused(sigma: float) -> None:
    with pytest.raises(NoiseError):
        DiscreteGaussian(sigma)


def share(std: float = 8.0, num_shares: int = 1, sensitivity: float = 4.0) -> NoiseShare:
    return NoiseShare(std, num_shares=num_shares, sensitivity=sensitivity, promised=PROMISE)


def test_noise_comes_with_the_event_of_its_code_and_in_no_other_way() -> None:
    fresh = share()
    assert [name for name in dir(fresh) if not name.startswith("_")] == ["add_to"]
    integers = np.arange(12, dtype=np.int32).reshape(3, 4)
    noised = fresh.add_to(integers, unsafe_source=unsafe_seeded_words(0))
    expected = DiscreteGaussian(8.0).sample(12, unsafe_seeded_words(0)).reshape(3, 4)
    assert np.array_equal(noised.values, integers + expected)
    assert noised.values.dtype == np.int64
    assert noised.event == PROMISE


def test_noise_used_twice_is_an_error() -> None:
    used = share()
    used.add_to(np.zeros(3, dtype=np.int64))
    with pytest.raises(RandomnessReuseError, match="has been used"):
        used.add_to(np.zeros(3, dtype=np.int64))


def test_two_shares_never_repeat_a_stream() -> None:
    zeros = np.zeros(1000, dtype=np.int64)
    first, second = (share().add_to(zeros).values for _ in range(2))
    assert not np.array_equal(first, second)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2
    streams = [WordSource.from_os().words(64) for _ in range(8)]
    assert np.unique(np.concatenate(streams)).size == 8 * 64


def test_a_source_goes_on_and_never_back() -> None:
    source = unsafe_seeded_words(1)
    found = np.concatenate([source.words(3), source.words(5), source.words(1)])
    assert np.array_equal(found, unsafe_seeded_words(1).words(9))
    assert not np.array_equal(found, unsafe_seeded_words(2).words(9))


@pytest.mark.parametrize("spread", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_source_cannot_be_copied(spread: Callable[[WordSource], object]) -> None:
    with pytest.raises(RandomnessReuseError):
        spread(WordSource.from_os())


def test_a_forked_worker_cannot_repeat_its_parents_noise() -> None:
    program = """
import os
from privacy.noise import RandomnessReuseError, WordSource
source = WordSource.from_os()
source.words(1)
child = os.fork()
if child == 0:
    try:
        source.words(1)
    except RandomnessReuseError:
        os._exit(42)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), source.words(1).size)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["42", "1"]


def test_less_noise_than_promised_is_refused() -> None:
    share(std=8.0, num_shares=1, sensitivity=4.0)
    share(std=8.0 / math.sqrt(3), num_shares=3, sensitivity=4.0)
    for std, num_shares, sensitivity in [(7.999, 1, 4.0), (8.0, 1, 4.001), (4.6, 3, 4.0), (8.0, 0, 4.0)]:
        with pytest.raises(NoiseError):
            share(std, num_shares, sensitivity)
    with pytest.raises(NoiseError):
        share(8.0, 1, math.nan)


def test_shares_too_fine_to_add_up_are_refused() -> None:
    with pytest.raises(NoiseError, match="too fine"):
        share(std=3.9, num_shares=4, sensitivity=1.0)
    share(std=3.9, num_shares=1, sensitivity=1.0)


def test_noise_is_added_to_integers_only() -> None:
    with pytest.raises(NoiseError, match="integers"):
        share().add_to(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(NoiseError, match="62 bits"):
        share().add_to(np.array([0, -(1 << 62)]))
    assert share().add_to(np.zeros(0, dtype=np.int64)).values.shape == (0,)


def test_the_sum_of_all_shares_has_the_variance_the_event_promises() -> None:
    """Four silos, one colluder: whichever share is known, the other three are the promised noise."""
    sensitivity, num_silos, colluding, values = 50.0, 4, 1, 200_000
    promised_std = PROMISE.noise_multiplier * sensitivity
    std = promised_std / math.sqrt(num_silos - colluding)
    shares = [
        NoiseShare(std, num_shares=num_silos - colluding, sensitivity=sensitivity, promised=PROMISE)
        .add_to(np.zeros(values, dtype=np.int64), unsafe_source=unsafe_seeded_words(silo))
        .values
        for silo in range(num_silos)
    ]
    total = np.sum(shares, axis=0)
    spread = 5 * math.sqrt(2 / values)
    assert total.var() / promised_std**2 == pytest.approx(num_silos / (num_silos - colluding), rel=spread)
    for known in shares:
        assert (total - known).var() / promised_std**2 == pytest.approx(1, rel=spread)
