"""What a label silo can learn from the numbers that a private encoder released, and from variants without
their noise. The attacker knows every row and every vector but one coin a slot: whether the person is here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federation.client import Board
from federation.rounds import JobState
from federation.steps import Step
from privacy.accounting import epsilon_of, epsilon_pld
from privacy.auditing import epsilon_from_guesses, guess
from privacy.budget import ZcdpFilter
from privacy.embedding import EmbeddingNoise
from privacy.events import SAMPLER, EventCount, GaussianEvent, PoissonSampledGaussianEvent
from silo.site import Site
from tests.silo.test_encoder_job import federation_of

CANARIES, DELTA, CONFIDENCE = 4_000, 1e-6, 0.999
SUREST = 400


def coins() -> np.ndarray:
    return np.random.default_rng(11).random(CANARIES) < 0.5


def released(is_in: np.ndarray, noise_multiplier: float) -> np.ndarray:
    """Everybody's vector is the same public one: the attacker knows what to look for in each slot."""
    event = GaussianEvent(noise_multiplier=noise_multiplier, sampler=SAMPLER)
    people = np.tile([1.0, 0.0], (int(is_in.sum()), 1))
    return EmbeddingNoise(event).release(people, np.flatnonzero(is_in), CANARIES).vectors


def found(table: np.ndarray, is_in: np.ndarray, *, threshold: float = 0.5) -> float:
    guesses = guess(table[:, 0], is_in, num_guesses=SUREST, threshold=threshold)
    return epsilon_from_guesses(guesses, DELTA, CONFIDENCE)


def promised(noise_multiplier: float) -> float:
    event = GaussianEvent(noise_multiplier=noise_multiplier, sampler=SAMPLER)
    return epsilon_of([EventCount(event, 1)], DELTA, ZcdpFilter())


@pytest.mark.parametrize("noise_multiplier", [0.7, 2.0])
def test_who_is_here_is_guessed_no_better_than_promised(noise_multiplier: float) -> None:
    is_in = coins()
    assert found(released(is_in, noise_multiplier), is_in) <= promised(noise_multiplier)


def test_a_claim_amplified_by_the_trainings_sampling_is_refuted_by_one_release() -> None:
    is_in = coins()
    sampled = PoissonSampledGaussianEvent(
        noise_multiplier=1.0, sample_rate=0.01, max_silos_per_user=1, sampler=SAMPLER
    )
    claimed = epsilon_pld([EventCount(sampled, 1)], DELTA)
    assert claimed < found(released(is_in, 1.0), is_in) <= promised(1.0)


def test_zero_rows_without_noise_say_who_is_not_here() -> None:
    is_in = coins()
    table = released(is_in, 2.0)
    table[~is_in] = 0.0
    sabotaged = np.where(table[:, :1] != 0, 1.0, 0.0)
    assert found(sabotaged, is_in) > promised(2.0)


def test_a_release_without_noise_is_caught() -> None:
    is_in = coins()
    assert found(released(is_in, 1e-9), is_in) > promised(2.0)


def test_vectors_that_are_not_clipped_are_caught() -> None:
    is_in = coins()
    table = released(is_in, 2.0)
    table[is_in, 0] += 9.0  # as if the person's vector had come with norm 10
    assert found(table, is_in, threshold=5.0) > promised(2.0)


def test_silos_that_are_killed_pay_once_and_the_label_silo_gets_one_release_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_of(tmp_path, monkeypatch)

    async def scenario(board: Board) -> JobState:
        await federation.until(lambda state: state.round == 4, board)
        federation.kills |= {
            ("after", Step.CHARGED.value),
            ("before", Step.LEG_WRITTEN.value),
            ("after", Step.PARCEL_READ.value),
        }
        return await federation.until_ended(board)

    state = federation.play(scenario)
    assert state.outcome == "completed", state.reason
    assert len(federation.killed) == 3
    assert state.round == 5
    for silo in federation.plan.silos[1:]:
        with Site(federation.parties.parties[silo].directory) as site:
            allowances = site.ledger.state().jobs[state.job].allowances
        assert [item.committed for item in allowances] == [1, 1, 1]
