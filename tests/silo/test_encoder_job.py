"""A vertical job with a private encoder, all real but the wire: lists, slots, training, one release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from federation.legs.legs import LegPurpose, legs, price_of
from federation.rounds import JobState
from policies.plans.vertical.encoder_drafting import EncoderDraft
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_training_event
from privacy.embedding import GRID
from silo.jobs.model import CARD_FILE
from silo.site import Site
from silo.vertical.artefacts import load_feature_basis, load_label_model
from silo.vertical.encoder.top_files import load_top_model
from silo.vertical.encoder.top_tasks import NumbersError, read_numbers
from tests.contracts.family_contract import make_catalogue
from tests.contracts.federation_directories import SILOS
from tests.silo.test_aligned_moments import LABEL_ITEMS, NUM_COMMON, tastes
from tests.support.vertical_federation import VerticalFederation, make_vertical_federation

DIMENSIONS = 3


def federation_of(directory: Path, monkeypatch: pytest.MonkeyPatch) -> VerticalFederation:
    return make_vertical_federation(
        directory,
        monkeypatch,
        rows=tastes(),
        encoder=EncoderDraft(dimensions=DIMENSIONS, steps=6, learning_rate=0.05),
        label_items=LABEL_ITEMS,
        target_epsilon=90.0,
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[VerticalFederation, JobState]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        federation = federation_of(tmp_path_factory.mktemp("encoder"), monkeypatch)
        state: JobState = federation.play(federation.until_ended)
    assert state.outcome == "completed", state.reason
    return federation, state


def directory_of(federation: VerticalFederation, silo: str) -> Path:
    return federation.parties.parties[silo].directory


def test_numbers_go_from_each_feature_silo_to_the_label_silo_and_nothing_goes_back(
    played: tuple[VerticalFederation, JobState],
) -> None:
    federation, state = played
    after_slots = [leg for leg in legs(federation.plan) if leg.number > len(SILOS) + 1]
    (features,) = after_slots
    assert features.purpose is LegPurpose.FEATURES
    assert features.is_sealed
    assert features.senders == SILOS[1:]
    assert features.readers == SILOS[:1]
    assert state.num_rounds == len(SILOS) + 2


def test_each_silo_paid_for_what_it_released_once(played: tuple[VerticalFederation, JobState]) -> None:
    federation, state = played
    for silo in SILOS:
        prices = [price_of(federation.plan, leg, silo) for leg in legs(federation.plan)]
        with Site(directory_of(federation, silo)) as site:
            allowances = site.ledger.state().jobs[state.job].allowances
        committed = [item.event for item in allowances for _ in range(item.committed)]
        assert sorted(map(repr, committed)) == sorted(repr(event) for event in prices if event is not None)
    expected = {encoder_training_event(federation.plan), encoder_release_event(federation.plan)}
    assert expected <= set(committed)


def test_the_label_silo_has_everybodys_numbers_with_the_promised_noise(
    played: tuple[VerticalFederation, JobState],
) -> None:
    federation, state = played
    top = load_top_model(directory_of(federation, SILOS[0]), state.job)
    row_of = dict(top.user_ids)
    std = encoder_release_event(federation.plan).noise_multiplier
    for place, partner in enumerate(SILOS[1:]):
        columns = slice(place * DIMENSIONS, (place + 1) * DIMENSIONS)
        common = [f"person-{n}" for n in range(NUM_COMMON)]
        exact = load_feature_basis(directory_of(federation, partner), state.job).features(common)
        assert np.linalg.norm(exact, axis=1).max() <= 1
        assert np.linalg.norm(exact, axis=1).min() > 0.9
        released = top.numbers[[row_of[person] for person in common], columns]
        assert (released - exact).std() == pytest.approx(std, rel=0.3)
        assert np.corrcoef(released.ravel(), exact.ravel())[0, 1] > 0.8
        alone = [row for person, row in row_of.items() if person.startswith(SILOS[0])]
        assert np.abs(top.numbers[alone, columns]).max() < 6 * std


def test_each_silo_keeps_a_card_of_what_it_has(played: tuple[VerticalFederation, JobState]) -> None:
    federation, state = played
    for silo in SILOS:
        card = json.loads((directory_of(federation, silo) / "jobs" / state.job / CARD_FILE).read_text())
        assert card["role"] == ("label" if silo == SILOS[0] else "feature")
        assert card["privacy"]["epsilon"] <= federation.plan.privacy.target_epsilon
        assert "no assumption" in json.dumps(card)


def test_both_models_of_the_label_silo_score_its_items(played: tuple[VerticalFederation, JobState]) -> None:
    federation, state = played
    directory = directory_of(federation, SILOS[0])
    joint, top = load_label_model(directory, state.job), load_top_model(directory, state.job)
    own = joint.items[:3]
    assert top.scores("person-0", own).shape == (LABEL_ITEMS,)
    assert np.isfinite(top.scores("nobody", own)).all()
    scores = joint.scores(own, {SILOS[1]: np.ones(DIMENSIONS)})
    assert np.isfinite(scores[joint.items]).all()
    assert scores.shape == (len(make_catalogue()),)


def test_other_bytes_than_numbers_of_every_slot_are_refused(
    played: tuple[VerticalFederation, JobState], tmp_path: Path
) -> None:
    plan, path = played[0].plan, tmp_path / "numbers"
    path.write_bytes(np.full(10 * DIMENSIONS, GRID, dtype="<i4").tobytes())
    assert (read_numbers(path, plan, 10) == 1.0).all()
    with pytest.raises(NumbersError, match="9 slots"):
        read_numbers(path, plan, 9)
