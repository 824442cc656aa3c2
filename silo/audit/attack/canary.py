"""Canaries in one run: which of many made-up people took part, guessed from what was released.

Steinke, Nasr, Jagielski (2023). Every canary is at the clip bound and likes items that others hardly share,
so its contribution is nearly orthogonal to the others'. The adversary is the strongest that differential
privacy speaks of: it knows all other people's rows, the plan and the canaries, everything but the coins and
the noise. From each opened aggregate it subtracts what it knows, projects the rest on every canary's own
contribution in that round (a matched filter) and adds the projections up over the rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from policies.plans.price import RoundShape
from silo.audit.attack.added import AddedCanaries
from silo.audit.attack.claims import hold
from silo.audit.attack.recording import Coin, Integers, Recording
from silo.audit.attack.results import Attacked, Report
from silo.data.interactions import Interactions
from silo.models.base import Family, State

NAME: Final = "canaries"
CODE: Final = "canaries_told_apart"
HALF: Final = 0.5
COIN_VARIANCE: Final = 0.25
SCORED_AT_ONCE: Final = 256

Floats = NDArray[np.float64]


@dataclass
class Evidence:
    """What the rounds say about each canary, in units of the noise.

    Attributes:
        overlaps: (canaries, canaries), inner products of their contributions, summed over rounds.
        projections: (canaries,), of what was released, half of every canary subtracted.
    """

    overlaps: Floats
    projections: Floats

    def scores(self) -> Floats:
        """Each canary's best linear estimate of its coin (0 or 1), the others' interference weighed in."""
        weight = self.overlaps + np.eye(len(self.overlaps)) / COIN_VARIANCE
        estimate: Floats = HALF + scipy.linalg.solve(weight, self.projections, assume_a="pos")
        return estimate


def attack(recording: Recording, report: Report) -> Attacked:
    """Guess the canaries' coins from the aggregates, with and without colluders, and from the model."""
    attacked = Attacked(NAME)
    coins = recording.canaries
    is_in = np.array([coin.is_in for coin in coins])
    added = AddedCanaries.of(recording)
    views = _views(recording, report, is_in, added)
    for tried, evidence in views.items():
        hold(
            attacked, recording, tried,
            scores=evidence.scores(), is_in=is_in, threshold=HALF, code=CODE, who="canaries",
        )  # fmt: skip
    hold(
        attacked, recording, "the member, for contributions of full norm that are added to the opened sums",
        scores=added.scores(), is_in=added.is_in, threshold=HALF, code=CODE, who="made-up contributions",
    )  # fmt: skip
    report("canaries: the released model")
    scores = model_scores(recording, _in_order(recording.people_of("canaries", coins), coins))
    hold(
        attacked, recording, "a member scores each canary by the released model",
        scores=scores, is_in=is_in, threshold=float(np.median(scores)), code=CODE, who="canaries",
    )  # fmt: skip
    return attacked


def model_scores(recording: Recording, people: Interactions) -> Floats:
    """How far above the catalogue's mean the model ranks each person's own items, in its deviations."""
    histories = people.histories()
    scores = np.zeros(people.num_users)
    for start in range(0, people.num_users, SCORED_AT_ONCE):
        part = histories[start : start + SCORED_AT_ONCE]
        given = recording.model.scores(part).astype(np.float64)
        own = np.asarray(part.multiply(given).sum(axis=1)).ravel() / np.maximum(np.diff(part.indptr), 1)
        spread = np.maximum(given.std(axis=1), np.finfo(np.float64).tiny)
        scores[start : start + SCORED_AT_ONCE] = (own - given.mean(axis=1)) / spread
    return scores


def _views(
    recording: Recording, report: Report, is_in: NDArray[np.bool_], added: AddedCanaries
) -> dict[str, Evidence]:
    """What each adversary sees of the canaries that are people; ``added`` looks at the same rounds."""
    family, coins = recording.family(), recording.canaries
    canaries = _in_order(recording.people_of("canaries", coins), coins)
    members = [recording.rows("members", silo) for silo in recording.plan.silos]
    num = len(coins)
    member = Evidence(np.zeros((num, num)), np.zeros(num))
    views = {"a member who knows everybody else, on the opened aggregates": member}
    is_one_sum = len(recording.manifest.opened) == 1
    coalition = Evidence(np.zeros((num, num)), np.zeros(num))
    if is_one_sum:
        views["the same with the colluders' shares of the noise taken off"] = coalition
    for place, shape, state, sums in recording.course(family):
        report(f"canaries: round {place.round} of {len(recording.manifest.opened)}")
        index = place.round - 1
        each = family.contribute_each(canaries, state, index, shape)
        damped = recording.expected(shape)
        if recording.is_random and shape.purpose == "training":
            damped *= _damping(each, family.contribute(canaries, state, index, shape))
        table = sp.csr_array(each * damped)
        known = [known_signal(recording, family, rows, state, index, shape) for rows in members]
        rest = sums - np.sum(known, axis=0)
        _add(member, table, rest)
        added.look(rest - table.T @ is_in, shape)
        if is_one_sum:
            _add(coalition, table, rest - colluders_noise(recording, known, shape))
    return views


def colluders_noise(recording: Recording, known: list[Integers], shape: RoundShape) -> Integers:
    """What the colluders drew in the recorded attempt; they know their own rows."""
    silos = recording.plan.silos
    drawn = [
        recording.levels(silo) + shape.offset - known[silos.index(silo)]
        for silo in recording.manifest.colluders
        if silo in recording.contributors
    ]
    return np.sum(drawn, axis=0, dtype=np.int64) if drawn else np.zeros(shape.values, np.int64)


def known_signal(
    recording: Recording, family: Family, rows: Interactions, state: State, index: int, shape: RoundShape
) -> Integers:
    """What people whose rows are known add to a silo's sum; nearly, where coins decide about it."""
    signal = recording.expected(shape) * family.contribute(rows, state, index, shape)
    whole: Integers = np.rint(signal).astype(np.int64)
    return np.clip(whole, shape.signal_min, shape.signal_max)


def _damping(each: sp.csr_array, drawn: Integers) -> float:
    """How much of the canaries' contributions without dropout is left, on average, of one with its coins."""
    whole = np.asarray(each.sum(axis=0), dtype=np.float64).ravel()
    length = float(whole @ whole)
    return float(np.clip(whole @ drawn / length, 0.0, 1.0)) if length else 1.0


def _add(evidence: Evidence, table: sp.csr_array, rest: Integers) -> None:
    """Weigh a round in by the noise that is seen in it: most values tell of no canary."""
    scale = max(1.0, float(np.median(np.abs(rest))) / _MEDIAN_OF_NORMAL)
    scaled = sp.csr_array(table / scale)
    overlaps = np.asarray((scaled @ scaled.T).toarray(), dtype=np.float64)
    evidence.overlaps += overlaps
    evidence.projections += scaled @ (rest / scale) - HALF * overlaps.sum(axis=1)


_MEDIAN_OF_NORMAL = 0.6745


def _in_order(by_silo: dict[str, Interactions], coins: tuple[Coin, ...]) -> Interactions:
    """All canaries as one table, in the order of the coins."""
    place = {coin.user_id: number for number, coin in enumerate(coins)}
    frames = []
    for rows in by_silo.values():
        places = pl.Series([place[user] for user in rows.user_ids], dtype=pl.UInt32)
        users = places.gather(rows.frame["user_index"])
        frames.append(rows.frame.with_columns(users.alias("user_index")))
    catalogue = next(iter(by_silo.values())).catalogue
    return Interactions(tuple(place), pl.concat(frames), catalogue)
