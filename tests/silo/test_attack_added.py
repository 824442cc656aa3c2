"""Canaries without people: told apart as the noise in the sums allows, and better where it is missing."""

from __future__ import annotations

from copy import copy
from statistics import NormalDist

import numpy as np
import pytest

from policies.plans.price import RoundShape, schedule
from privacy.auditing import epsilon_from_guesses, guess
from silo.audit.attack.added import HALF, AddedCanaries
from tests.contracts.family_contract import make_catalogue, make_plan

CANARIES = 4000
VALUES = 5000
ROUNDS = 9


@pytest.fixture(scope="module")
def shape() -> RoundShape:
    of_plan = copy(schedule(make_plan(make_catalogue(), {"family": "popularity"}))[0])
    object.__setattr__(of_plan, "values", VALUES)  # a copy: the plan's own shape is everybody's
    return of_plan


def canaries(seed: int = 1, rate: float = 1.0) -> AddedCanaries:
    rng = np.random.default_rng(seed)
    return AddedCanaries(rng.random(CANARIES) < HALF, rng.permutation(VALUES)[:CANARIES], VALUES, rate, rng)


def looked(shape: RoundShape, noise_std: float, *, loud: float = 0.0, rate: float = 1.0) -> AddedCanaries:
    """After rounds whose noise is of that many norms; some coordinates are so many norms louder."""
    rng, added = np.random.default_rng(2), canaries(rate=rate)
    louder = np.where(np.arange(VALUES) % 10 == 0, loud, 0.0)
    for _ in range(ROUNDS):
        std = shape.sensitivity * np.hypot(noise_std, louder)
        added.look(rng.normal(0.0, np.maximum(std, 1e-9)), shape)
    return added


def share_right(added: AddedCanaries, share: float = 1.0) -> float:
    made = guess(added.scores(), added.is_in, num_guesses=round(share * CANARIES), threshold=HALF)
    return made.correct / made.made


@pytest.mark.parametrize("noise_std", [3.0, 6.0])
def test_they_are_told_apart_as_well_as_the_noise_allows(shape: RoundShape, noise_std: float) -> None:
    mu = ROUNDS**0.5 / noise_std
    expected = NormalDist().cdf(mu / 2)
    spread = 4 * (expected * (1 - expected) / CANARIES) ** 0.5
    assert abs(share_right(looked(shape, noise_std)) - expected) < spread


def test_without_noise_each_is_told_and_no_claim_of_a_job_survives(shape: RoundShape) -> None:
    added = looked(shape, 0.0)
    assert share_right(added) == 1.0
    made = guess(added.scores(), added.is_in, num_guesses=CANARIES, threshold=HALF)
    assert epsilon_from_guesses(made, 1e-6, 0.999) > 6


def test_coordinates_that_are_louder_make_nobody_sure(shape: RoundShape) -> None:
    """What others' dropout leaves in some coordinates must not pass for evidence."""
    added = looked(shape, 0.5, loud=20.0)
    assert share_right(added, 0.125) > 0.99
    unjudged = np.sum([one for one, _ in added.rounds], axis=0) + HALF
    made = guess(unjudged, added.is_in, num_guesses=round(0.125 * CANARIES), threshold=HALF)
    assert made.correct / made.made < 0.99


def test_who_is_sampled_is_seen_less(shape: RoundShape) -> None:
    assert 0.5 < share_right(looked(shape, 3.0, rate=0.3)) < share_right(looked(shape, 3.0)) - 0.03


def test_they_are_in_no_shorter_sum(shape: RoundShape) -> None:
    added = looked(shape, 1.0)
    object.__setattr__(added, "num_values", VALUES + 1)
    added.look(np.zeros(VALUES), shape)
    assert len(added.rounds) == ROUNDS
