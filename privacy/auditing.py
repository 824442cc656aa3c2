"""Lower bounds on epsilon from attacks that were carried out: what a mechanism cannot have.

An attacker guesses secrets that coins decided. If it is right more often than an (epsilon, delta)-private
mechanism allows, the mechanism is not (epsilon, delta)-private. Every bound here is one-sided: it exceeds
the true epsilon with probability at most ``1 - confidence``, however clever or clumsy the attack was. A bound
of 0 says that nothing was found, never that nothing is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import UsageError

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

LARGEST_EPSILON = 64.0
_BISECTIONS = 60


class AuditGameError(UsageError):
    """Guesses from which no bound follows."""

    code = "audit_game"


@dataclass(frozen=True)
class Guesses:
    """What an attacker said about independent fair coins, after it saw the output.

    Attributes:
        canaries: coins that were tossed.
        made: coins it said something about; it abstained on the others.
        correct: of those it was right about.
    """

    canaries: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.canaries:
            raise AuditGameError(
                f"{self.correct} of {self.made} guesses about {self.canaries} coins cannot be"
            )


def guess(scores: Scores, is_in: Flags, *, num_guesses: int, threshold: float) -> Guesses:
    """Guess the coins of the canaries one is surest about: in above the threshold, out below it.

    Args:
        scores: (canaries,), larger = rather in; a function of what was released, never of the coins.
        is_in: (canaries,), the coins, to count with.
        num_guesses: fixed before the scores were seen; the rest is abstained on.
        threshold: score at which in and out are as likely.

    Raises:
        AuditGameError: scores and coins of different lengths, or more guesses than coins.
    """
    if scores.shape != is_in.shape or scores.ndim != 1:
        raise AuditGameError(f"{scores.shape} scores for {is_in.shape} coins")
    surest = np.argsort(-np.abs(scores - threshold), kind="stable")[:num_guesses]
    correct = int(np.count_nonzero((scores[surest] > threshold) == is_in[surest]))
    return Guesses(canaries=scores.size, made=num_guesses, correct=correct)


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """How likely so many correct guesses are at most, if the mechanism is (epsilon, delta)-private.

    Steinke, Nasr, Jagielski (2023), "Privacy auditing with one (1) training run", theorem 5.2: with ``B``
    binomial of ``made`` guesses and success probability ``e^ε / (1 + e^ε)``, ::

        P[correct >= v] <= P[B >= v] + 2 m δ max_i P[v - i <= B < v] / i

    No independence is asked of the guesses: the coins are independent, one run decides about all.
    """
    from scipy.stats import binom

    if epsilon < 0 or not 0 <= delta <= 1:
        raise AuditGameError(f"epsilon {epsilon}, delta {delta} is no privacy")
    success = 1.0 / (1.0 + math.exp(-epsilon))
    beta = float(binom.sf(guesses.correct - 1, guesses.made, success))
    alpha = 0.0
    if guesses.correct and delta:
        below = binom.pmf(np.arange(guesses.correct - 1, -1, -1), guesses.made, success)
        alpha = float((np.cumsum(below) / np.arange(1, guesses.correct + 1)).max())
    return min(1.0, beta + 2 * guesses.canaries * delta * alpha)


def epsilon_from_guesses(guesses: Guesses, delta: float, confidence: float) -> float:
    """The largest epsilon that these guesses rule out; see :func:`p_value`.

    Args:
        guesses: of one run.
        delta: of the claim.
        confidence: one-sided, below 1.
    """
    return _largest(lambda epsilon: p_value(guesses, epsilon, delta) < 1 - confidence)


def epsilon_from_rates(
    *, true_positives: int, members: int, false_positives: int, others: int, delta: float, confidence: float
) -> float:
    """The epsilon that a test with these error counts implies.

    An (epsilon, delta)-private mechanism gives ``TPR <= e^ε FPR + δ`` (Wasserman and Zhou 2010; Kairouz, Oh,
    Viswanath 2015); rates enter as their Clopper-Pearson bounds, half the error each. The people must have
    been judged by a threshold that does not depend on them.
    """
    level = (1 - confidence) / 2
    least = lower_bound_of_rate(true_positives, members, 1 - level)
    most = upper_bound_of_rate(false_positives, others, 1 - level)
    return math.log((least - delta) / most) if least - delta > most else 0.0


def lower_bound_of_rate(successes: int, trials: int, confidence: float) -> float:
    """One-sided Clopper-Pearson lower bound of a probability."""
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, successes, trials - successes + 1)) if successes else 0.0


def upper_bound_of_rate(successes: int, trials: int, confidence: float) -> float:
    """One-sided Clopper-Pearson upper bound of a probability."""
    return 1.0 - lower_bound_of_rate(trials - successes, trials, confidence)


def _largest(is_ruled_out: Callable[[float], bool]) -> float:
    """Bisect for the end of an interval from 0; the result itself is ruled out, or 0."""
    low, high = 0.0, LARGEST_EPSILON
    if not is_ruled_out(low):
        return 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_ruled_out(middle) else (low, middle)
    return low
