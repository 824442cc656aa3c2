"""One of several candidates chosen by private utilities: permute-and-flip, exact in integers.

Guarantees
----------
- ``choose`` is ``epsilon``-differentially private (pure), add-or-remove-one, for utilities that one person
  moves *all in the same direction*, each by at most ``sensitivity``. That is so where a utility is a sum over
  people of scores in [0, sensitivity]: the relation of :func:`total_utilities`.
- Permute-and-flip (McKenna, Sheldon 2020) visits the candidates in a uniformly random order and accepts
  candidate ``i`` with probability ``exp(-epsilon (max u - u_i) / sensitivity)``. It draws from the same
  distribution as *report noisy max* with exponential noise of scale ``sensitivity / epsilon`` (Ding et al.
  2021). With the others' noise fixed, ``i`` wins where its own exceeds a threshold, which one person moves by
  at most ``sensitivity`` either way when all utilities move alike; so no factor 2 is lost.
- Utilities are integers and ``epsilon`` is a fraction: every probability is compared exactly
  (:mod:`privacy.exact`). Floating point has no part in the choice, so its rounding reveals nothing.
- A choice is drawn once, in this process, from the operating system's generator, and hands out its event.
- ``P(u_chosen < max u - t sensitivity / epsilon) <= k exp(-t)`` for ``k`` candidates: what is lost by noise.

=====================================  ==================================================
edge                                   what happens
=====================================  ==================================================
one candidate                          ``SelectionError``: there is nothing to choose
utilities that are no integers         ``SelectionError``
a score that is NaN                    counts as 0: one person's rows must stop nothing
a score below 0 or above 1             is brought to the nearer end
a second choice by the same object     ``RandomnessReuseError``
=====================================  ==================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from privacy.errors import UsageError
from privacy.events import PureEvent
from privacy.exact import LazyUniform
from privacy.randomness import WORD_BITS, RandomnessReuseError, WordSource

SCORE_GRID: Final = 1 << 16
"""Integer units per score of 1; one person's scores are rounded to it one by one."""


class SelectionError(UsageError):
    """A private choice that cannot be made as asked."""

    code = "selection"


class Selected(NamedTuple):
    """Which candidate, and what must have been charged for it."""

    index: int  # type: ignore[assignment]  # tuple.index has no meaning here
    event: PureEvent


def integer_scores(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """One person's scores as integers in [0, ``SCORE_GRID``].

    Args:
        scores: of each candidate, shape (candidates,), in [0, 1].

    Guarantees:
        A function of this person's scores alone, so that sums of it have sensitivity ``SCORE_GRID`` and all
        of a person's parts of it have one sign.
    """
    bounded = np.clip(np.nan_to_num(scores, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    rounded: npt.NDArray[np.int64] = np.rint(bounded * SCORE_GRID).astype(np.int64)
    return rounded


def total_utilities(people: Iterable[npt.NDArray[np.floating]], candidates: int) -> npt.NDArray[np.int64]:
    """Sum everybody's scores: utilities of sensitivity ``SCORE_GRID``.

    Args:
        people: scores of each candidate by each person, shape (candidates,) each.
        candidates: how many there are.
    """
    totals = np.zeros(candidates, dtype=np.int64)
    for scores in people:
        if scores.shape != (candidates,):
            raise SelectionError(f"scores of shape {scores.shape} for {candidates} candidates")
        totals += integer_scores(scores)
    return totals


class PrivateSelection:
    """One choice, made once.

    Args:
        epsilon: its whole price.
        sensitivity: the most that one person moves a utility, integer units; all in one direction.

    Raises:
        SelectionError: a price or sensitivity that is not positive.
    """

    def __init__(self, epsilon: float, sensitivity: int = SCORE_GRID) -> None:
        if not 0 < epsilon < math.inf or sensitivity < 1:
            raise SelectionError(
                f"epsilon is {epsilon} and sensitivity {sensitivity}; both must be positive and finite",
                where="epsilon",
                remedy="ask for a choice of epsilon 0.1, say",
            )
        self.event = PureEvent(epsilon=epsilon)
        self._rate = Fraction(epsilon) / sensitivity
        self._is_used = False

    def choose(
        self, utilities: Sequence[int] | npt.NDArray[np.integer], *, unsafe_source: WordSource | None = None
    ) -> Selected:
        """Choose by permute-and-flip; larger utilities are likelier.

        Args:
            utilities: one integer for each candidate, two or more; exact.
            unsafe_source: a deterministic source, in tests only.

        Raises:
            RandomnessReuseError: this object has chosen before.
            SelectionError: fewer than two candidates, or utilities that are no integers.
        """
        if self._is_used:
            raise RandomnessReuseError(
                "this choice has been made; a second one would not be paid for",
                remedy="charge for a new choice",
            )
        values = np.asarray(utilities)
        if values.ndim != 1 or len(values) < 2 or not np.issubdtype(values.dtype, np.integer):
            raise SelectionError(
                f"{values.dtype} utilities of shape {values.shape}",
                remedy="give one integer for each of two or more candidates",
            )
        self._is_used = True
        source = WordSource.from_os() if unsafe_source is None else unsafe_source
        exact = [int(value) for value in values]
        best = max(exact)
        for candidate in _permutation(len(exact), source):
            gap = self._rate * (best - exact[candidate])
            if _is_heads(gap, source):
                return Selected(candidate, self.event)
        raise AssertionError("the best candidate is accepted with probability 1")


def loss_bound(epsilon: float, candidates: int, probability: float = 0.05) -> float:
    """By how much the chosen total may fall short of the best, except with ``probability``.

    Args:
        epsilon: of the choice.
        candidates: how many there were.
        probability: with which it is more.

    Returns:
        In units of one person's largest score; public, for it depends on no utility.
    """
    return math.log(candidates / probability) / epsilon


def _is_heads(gap: Fraction, source: WordSource) -> bool:
    """Bernoulli(exp(-gap)), as a run of coins of exp(-1) and one of the rest; large gaps end early."""
    whole, rest = divmod(gap, 1)
    for _ in range(int(whole)):
        if not LazyUniform(source.word(), source).is_below_exp(Fraction(1)):
            return False
    return LazyUniform(source.word(), source).is_below_exp(rest)


def _permutation(count: int, source: WordSource) -> list[int]:
    """Fisher-Yates with exactly uniform draws."""
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        chosen = _below(last + 1, source)
        order[last], order[chosen] = order[chosen], order[last]
    return order


def _below(bound: int, source: WordSource) -> int:
    """Uniform below ``bound``: words of the last, incomplete block are drawn again."""
    fair = (1 << WORD_BITS) // bound * bound
    while (word := source.word()) >= fair:
        pass
    return word % bound
