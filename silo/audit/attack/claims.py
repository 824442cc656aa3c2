"""Holding guesses against what was claimed, at several deltas and numbers of guesses at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.auditing import Guesses, epsilon_from_guesses, guess
from silo.audit.attack.recording import Recording
from silo.audit.attack.results import Attacked, Trial
from silo.audit.findings import finding

CONFIDENCE: Final = 0.999
SHARES_OF_GUESSES: Final = (1.0, 0.125)
"""Guess about every canary, or the surest only: fixed before anything is seen, paid for by the level."""
FRACTIONS_OF_DELTA: Final = (1.0, 1 / 32)
"""The claim is a curve. At its own delta a perfect attack on m canaries proves little, for it pays 2 m δ."""


def hold(
    attacked: Attacked,
    recording: Recording,
    tried: str,
    *,
    scores: NDArray[np.float64],
    is_in: NDArray[np.bool_],
    threshold: float,
    code: str,
    who: str,
) -> None:
    """Guess, bound epsilon, compare; a bound above the claim is a finding.

    All combinations of delta and number of guesses share one error probability (Bonferroni), so the whole
    trial finds something in an honest job with probability at most ``1 - CONFIDENCE``. Canaries too few to
    find anything at all in a job, whatever it did, are said to be.
    """
    level = (1 - CONFIDENCE) / (len(SHARES_OF_GUESSES) * len(FRACTIONS_OF_DELTA))
    target = recording.plan.privacy.target_delta
    best: tuple[float, Trial] | None = None
    reach, reached = 0.0, 0.0
    for fraction, share in product(FRACTIONS_OF_DELTA, SHARES_OF_GUESSES):
        made = guess(scores, is_in, num_guesses=max(1, round(share * scores.size)), threshold=threshold)
        delta = fraction * target
        bound, claim = epsilon_from_guesses(made, delta, 1 - level), recording.claim_at(delta)
        perfect = epsilon_from_guesses(replace(made, correct=made.made), delta, 1 - level)
        if perfect / claim > reach:
            reach, reached = perfect / claim, perfect
        if best is None or bound / claim > best[0]:
            best = bound / claim, _trial(attacked.name, tried, made, bound, claim, delta, who)
            text = f"{best[1].came_to}: epsilon is at least {bound:.3g}, {claim:.3g} was claimed "
            text += f"(delta {delta:.2g}; {tried})"
    if best is None:
        raise RuntimeError("at least one combination is tried")
    trial = best[1]
    if reach <= 1:
        weak = f"{trial.came_to}; too few to refute this claim: all right would show {reached:.3g}"
        trial = trial.model_copy(update={"came_to": weak})
    attacked.trials.append(trial)
    if not trial.stands:
        attacked.findings.append(finding(code, "recording", text))


def _trial(name: str, tried: str, made: Guesses, bound: float, claim: float, delta: float, who: str) -> Trial:
    return Trial(
        attack=name,
        tried=tried,
        came_to=f"{made.correct:,} of {made.made:,} guesses right, of {made.canaries:,} {who}",
        epsilon_lower_bound=bound,
        claimed_epsilon=claim,
        delta=delta,
        stands=bound <= claim,
    )
