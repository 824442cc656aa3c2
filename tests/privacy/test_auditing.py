"""Lower bounds on epsilon: they hold where epsilon is known, and come close where there is much to see."""

from __future__ import annotations

import bisect
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from privacy.auditing import (
    AuditGameError,
    Guesses,
    epsilon_from_guesses,
    epsilon_from_rates,
    guess,
    lower_bound_of_rate,
    p_value,
    upper_bound_of_rate,
)

CONFIDENCE = 0.999


def success_of(epsilon: float) -> float:
    return 1 / (1 + math.exp(-epsilon))


# ── randomised response: the mechanism whose epsilon is what the guesses show ──


@pytest.mark.parametrize("canaries", [10, 100, 1000])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_of_all_runs_of_randomised_response_hardly_any_exceeds_its_epsilon(
    canaries: int, epsilon: float
) -> None:
    """Not simulated: the bound grows with the right guesses, and their law is known."""
    first = bisect.bisect_left(
        range(canaries + 1),
        True,
        key=lambda v: epsilon_from_guesses(Guesses(canaries, canaries, v), 0.0, CONFIDENCE) > epsilon,
    )
    too_high = binom.sf(first - 1, canaries, success_of(epsilon))
    assert too_high <= 1 - CONFIDENCE


def test_many_canaries_of_randomised_response_bring_the_bound_within_a_tenth() -> None:
    canaries, epsilon = 20_000, 1.0
    typical = Guesses(canaries, canaries, round(canaries * success_of(epsilon)))
    bound = epsilon_from_guesses(typical, 0.0, CONFIDENCE)
    assert 0.9 * epsilon < bound < epsilon


def test_runs_that_sometimes_give_everything_away_do_not_exceed_epsilon_at_that_delta() -> None:
    """Name and shame: with probability delta each coin is shown; the rest is randomised response."""
    canaries, epsilon, delta, runs = 100, 1.0, 1e-3, 20_000
    rng = np.random.default_rng(1)
    shown = rng.binomial(canaries, delta, runs)
    correct = shown + rng.binomial(canaries - shown, success_of(epsilon))
    bound = {
        int(v): epsilon_from_guesses(Guesses(canaries, canaries, int(v)), delta, CONFIDENCE)
        for v in np.unique(correct)
    }
    assert np.mean([bound[int(v)] > epsilon for v in correct]) <= 1 - CONFIDENCE


def test_a_gaussian_mechanism_is_told_apart_and_never_beyond_its_epsilon() -> None:
    """Noise multiplier 1.158 is epsilon 4 at delta 1e-5; orthogonal canaries, the surest eighth guessed."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(20):
        is_in = rng.random(2048) < 0.5
        scores = is_in + rng.normal(0, 1.158, is_in.size)
        made = guess(scores, is_in, num_guesses=256, threshold=0.5)
        found.append(epsilon_from_guesses(made, 3e-7, CONFIDENCE))
    assert max(found) < 4.0
    assert np.median(found) > 0.7


def test_perfect_guesses_give_the_closed_form() -> None:
    """All of m right at delta 0: ``q^m = 0.001``."""
    for canaries in (10, 100, 1000):
        q = (1 - CONFIDENCE) ** (1 / canaries)
        expected = max(0.0, math.log(q / (1 - q)))
        bound = epsilon_from_guesses(Guesses(canaries, canaries, canaries), 0.0, CONFIDENCE)
        assert bound == pytest.approx(expected, abs=1e-9)


def test_chance_and_silence_say_nothing() -> None:
    assert epsilon_from_guesses(Guesses(1000, 1000, 500), 0.0, CONFIDENCE) == 0
    assert epsilon_from_guesses(Guesses(1000, 0, 0), 1e-5, CONFIDENCE) == 0
    assert p_value(Guesses(1000, 0, 0), 1.0, 1e-5) == 1


# ── the theorem's formula ──


@pytest.mark.parametrize(("canaries", "made", "correct"), [(50, 50, 45), (50, 20, 20), (300, 60, 51)])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_the_p_value_is_the_theorems_term_by_term(
    canaries: int, made: int, correct: int, delta: float
) -> None:
    for epsilon in (0.0, 0.5, 2.0):
        q = success_of(epsilon)
        tail = sum(binom.pmf(k, made, q) for k in range(correct, made + 1))
        alpha = max(
            sum(binom.pmf(k, made, q) for k in range(correct - i, correct)) / i for i in range(1, correct + 1)
        )
        expected = min(1.0, tail + 2 * canaries * delta * alpha)
        assert p_value(Guesses(canaries, made, correct), epsilon, delta) == pytest.approx(expected, rel=1e-9)


def test_a_larger_delta_and_more_abstentions_lower_the_bound() -> None:
    at = [epsilon_from_guesses(Guesses(500, 500, 480), delta, CONFIDENCE) for delta in (0, 1e-6, 1e-4, 1e-2)]
    assert at == sorted(at, reverse=True)
    assert at[0] > at[-1]
    few = epsilon_from_guesses(Guesses(500, 50, 48), 1e-6, CONFIDENCE)
    assert epsilon_from_guesses(Guesses(5000, 50, 48), 1e-6, CONFIDENCE) < few


def test_guesses_that_cannot_be_are_refused() -> None:
    for canaries, made, correct in ((10, 11, 5), (10, 5, 6), (10, 5, -1)):
        with pytest.raises(AuditGameError):
            Guesses(canaries, made, correct)
    with pytest.raises(AuditGameError):
        guess(np.zeros(3), np.zeros(4, bool), num_guesses=1, threshold=0)
    with pytest.raises(AuditGameError):
        p_value(Guesses(1, 1, 1), -1.0, 0.0)


def test_the_surest_are_guessed_and_only_the_score_decides() -> None:
    scores = np.array([0.9, 0.6, 0.1, 0.5, -3.0])
    is_in = np.array([True, False, False, True, True])
    assert guess(scores, is_in, num_guesses=1, threshold=0.5) == Guesses(5, 1, 0)
    assert guess(scores, is_in, num_guesses=3, threshold=0.5) == Guesses(5, 3, 2)


# ── error rates ──


def test_the_rates_of_a_gaussian_test_imply_no_more_than_its_epsilon() -> None:
    """Sensitivity over noise 1: at FPR 1 % the likelihood ratio test has TPR 9 %."""
    threshold = norm.isf(0.01)
    people = 100_000
    hits, alarms = round(people * norm.sf(threshold - 1)), round(people * norm.sf(threshold))
    bound = epsilon_from_rates(
        true_positives=hits, members=people, false_positives=alarms, others=people, delta=0.0,
        confidence=CONFIDENCE,
    )  # fmt: skip
    exact = math.log(norm.sf(threshold - 1) / norm.sf(threshold))
    assert 0.9 * exact < bound < exact


def test_few_people_or_no_difference_imply_nothing() -> None:
    for hits, alarms, people in ((3, 0, 3), (50, 50, 100), (0, 0, 10)):
        bound = epsilon_from_rates(
            true_positives=hits, members=people, false_positives=alarms, others=people, delta=1e-5,
            confidence=CONFIDENCE,
        )  # fmt: skip
        assert bound == 0


def test_bounds_of_a_rate_are_clopper_and_pearsons() -> None:
    assert lower_bound_of_rate(0, 10, 0.999) == 0
    assert upper_bound_of_rate(0, 10, 0.999) == pytest.approx(1 - 0.001**0.1)
    assert lower_bound_of_rate(10, 10, 0.999) == pytest.approx(0.001**0.1)
    assert binom.sf(29, 100, lower_bound_of_rate(30, 100, 0.999)) == pytest.approx(0.001)
