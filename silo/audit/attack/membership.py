"""Membership inference on the released model: real people, half of whom a coin kept out.

Each person is scored by how highly the model ranks their own items (the loss attack of Yeom et al. 2018). The
area under the curve and the true positives at few false positives (Carlini et al. 2022) describe how well
that works; what decides is the epsilon that the guesses imply, beside the claimed one. An area above one half
alone says nothing: privacy with a finite epsilon allows it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.auditing import epsilon_from_rates, lower_bound_of_rate
from silo.audit.attack.canary import model_scores
from silo.audit.attack.claims import CONFIDENCE, hold
from silo.audit.attack.recording import Recording
from silo.audit.attack.results import Attacked, Report, Trial
from silo.audit.findings import finding

NAME: Final = "membership"
CODE: Final = "members_told_apart"
LOW_FALSE_POSITIVES: Final = 0.01

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def attack(recording: Recording, report: Report) -> Attacked:
    """Score people in and out by the model, and bound epsilon by the guesses and by the error rates."""
    attacked = Attacked(NAME)
    report("membership: scoring people by the released model")
    coins = recording.people
    is_in = np.array([coin.is_in for coin in coins])
    if not 0 < np.count_nonzero(is_in) < is_in.size:
        attacked.add("real people in and out", "too few people in this recording")
        return attacked
    scores = _scores(recording)
    hold(
        attacked, recording, "a member scores real people by the released model",
        scores=scores, is_in=is_in, threshold=float(np.median(scores)), code=CODE, who="people",
    )  # fmt: skip
    rates = _rates(recording, scores, is_in)
    attacked.trials.append(rates)
    if not rates.stands:
        text = f"{rates.came_to}: that implies epsilon {rates.epsilon_lower_bound:.3g}"
        attacked.findings.append(finding(CODE, "recording", text))
    return attacked


def area_under_curve(scores: Floats, is_in: Flags) -> float:
    """Probability that a member scores above somebody who is none, ties counted half."""
    from scipy.stats import mannwhitneyu

    members, others = scores[is_in], scores[~is_in]
    return float(mannwhitneyu(members, others).statistic / (members.size * others.size))


def _rates(recording: Recording, scores: Floats, is_in: Flags) -> Trial:
    """Error rates on every other person, at a threshold chosen on the rest."""
    chosen = np.arange(scores.size) % 2 == 0
    others = scores[chosen & ~is_in]
    threshold = float(np.quantile(others, 1 - LOW_FALSE_POSITIVES)) if others.size else np.inf
    judged = scores[~chosen] > threshold
    members = is_in[~chosen]
    hits, of_members = int(np.count_nonzero(judged & members)), int(np.count_nonzero(members))
    alarms, of_others = int(np.count_nonzero(judged & ~members)), int(np.count_nonzero(~members))
    delta = recording.plan.privacy.target_delta
    bound = 0.0
    if of_members and of_others:
        bound = epsilon_from_rates(
            true_positives=hits, members=of_members, false_positives=alarms, others=of_others,
            delta=delta, confidence=CONFIDENCE,
        )  # fmt: skip
    least = lower_bound_of_rate(hits, of_members, CONFIDENCE) if of_members else 0.0
    return Trial(
        attack=NAME,
        tried=f"the same with a threshold meant for {LOW_FALSE_POSITIVES:.0%} false positives",
        came_to=(
            f"AUC {area_under_curve(scores, is_in):.3f}; finds {hits} of {of_members} members (at least "
            f"{least:.1%} of all), wrong about {alarms} of {of_others} others"
        ),
        epsilon_lower_bound=bound,
        claimed_epsilon=recording.claimed_epsilon,
        delta=delta,
        stands=bound <= recording.claimed_epsilon,
    )


def _scores(recording: Recording) -> Floats:
    """One score a person, in the order of the coins."""
    found: dict[str, float] = {}
    for silo, is_in in dict.fromkeys((coin.silo, coin.is_in) for coin in recording.people):
        rows = recording.rows("members" if is_in else "others", silo)
        wanted = {coin.user_id for coin in recording.people if (coin.silo, coin.is_in) == (silo, is_in)}
        people = rows.select([place for place, user in enumerate(rows.user_ids) if user in wanted])
        found |= dict(zip(people.user_ids, model_scores(recording, people).tolist(), strict=True))
    return np.array([found[coin.user_id] for coin in recording.people])
