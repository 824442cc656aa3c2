"""A vertical job of real processes over TLS: what each is left with, and kill -9 in every kind of leg."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from federation.legs.legs import legs, price_of
from federation.steps import LEG_STEPS, Step
from policies.plans.vertical.price import moments_event
from privacy.encryption.crossmoments.noise import noise_std
from silo.vertical.artefacts import BASIS_FILE, MODEL_FILE, load_feature_basis, load_label_model
from silo.vertical.moments.files import moments_shape
from tests.contracts.small_federation import SmallFederation, nodes, state_on_disk, submit, wait_until
from tests.support.partners import NAMES, NUM_COMMON, cross_moments_in_clear, make_partners
from tests.support.supervisor import Supervisor, around, charges, outbox_rows, sha256_of

pytestmark = pytest.mark.e2e

SECONDS = 400
OF_HUB = (Step.RELAYED_POSTED, Step.SLOTS_WRITTEN, Step.MATCHED_POSTED)
ONCE = (Step.APPROVAL_STORED,)
OF_SILO = tuple(step for step in LEG_STEPS if step not in (*OF_HUB, *ONCE))


def is_finished(federation: SmallFederation, job: str) -> bool:
    notes = [federation.directory(name) / "jobs" / job / "state.json" for name in NAMES]
    return all(note.exists() and json.loads(note.read_text()).get("finished") for note in notes)


def check_result(federation: SmallFederation, job: str) -> None:
    """The label silo opened the moments of the people in common under the promised noise, and all is paid."""
    state = state_on_disk(federation, job)
    assert state is not None
    assert state.outcome == "completed", state.reason
    model = load_label_model(federation.directory(NAMES[0]), job)
    for partner in NAMES[1:]:
        basis = load_feature_basis(federation.directory(partner), job)
        numbers = basis.features([f"person-{n}" for n in range(NUM_COMMON)])
        clear = cross_moments_in_clear(federation.rows, model.items, numbers)
        shape = moments_shape(federation.plan, state.spine_slots or 0, partner)
        promised = noise_std(moments_event(federation.plan).noise_multiplier, shape)
        assert (model.partners[partner].cross - clear).std() == pytest.approx(promised, rel=0.35)
        assert np.abs(clear).max() > 20 * promised
    for name in NAMES:
        directory = federation.directory(name)
        due = {(leg.number, 1): price_of(federation.plan, leg, name) for leg in legs(federation.plan)}
        wanted = {place: event.model_dump(mode="json") for place, event in due.items() if event is not None}
        assert charges(directory, job) == wanted
        assert outbox_rows(directory, "SELECT * FROM secrets") == []
        assert [path.name for path in (directory / "outbox").iterdir() if path.name.startswith(job)] == []
        assert json.loads((directory / "jobs" / job / "receipts.json").read_text())
        check_card(federation, name, job)
    assert not (federation.directory(NAMES[1]) / "jobs" / job / MODEL_FILE).exists()
    assert not (federation.directory(NAMES[0]) / "jobs" / job / BASIS_FILE).exists()


def check_card(federation: SmallFederation, name: str, job: str) -> None:
    """What a silo keeps says what it is, and what its own ledger paid."""
    directory = federation.directory(name) / "jobs" / job
    card = json.loads((directory / "model-card.json").read_text())
    role = "label" if name == NAMES[0] else "feature"
    kept = directory / (MODEL_FILE if role == "label" else BASIS_FILE)
    assert (card["role"], card["model"]["sha256"]) == (role, sha256_of(kept))
    promised = federation.plan.privacy.target_epsilon
    assert card["privacy"]["epsilon"] <= promised
    assert (card["privacy"]["epsilon"] > promised / 2) == (role == "feature")


@pytest.mark.timeout(SECONDS + 60)
def test_partners_bring_moments_through_real_processes(tmp_path: Path) -> None:
    federation = make_partners(tmp_path)
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        job = submit(federation)
        wait_until(lambda: is_finished(federation, job), seconds=SECONDS)
        assert [node.end() for node in running.values()] == [0] * len(running)
    check_result(federation, job)


@pytest.mark.timeout(SECONDS + 60)
def test_a_vertical_job_survives_kills_in_every_kind_of_leg(tmp_path: Path) -> None:
    federation = make_partners(tmp_path)
    kills = {
        "hub": around(OF_HUB),
        NAMES[0]: around(OF_SILO) + around(ONCE),
        NAMES[1]: around(OF_SILO) + around(OF_SILO) + around(ONCE) + around([Step.MODEL_WRITTEN]),
        NAMES[2]: around([Step.CHARGED, Step.SECRETS_STORED]),
    }
    asked = {name: [kill.failpoint for kill in mine] for name, mine in kills.items()}
    with nodes(federation) as running, ThreadPoolExecutor(1) as aside:
        supervisor = Supervisor(federation, running, kills)
        supervisor.start()
        submitted = aside.submit(submit, federation)
        supervisor.run(
            lambda: submitted.done() and is_finished(federation, submitted.result()), seconds=SECONDS
        )
        assert [node.end() for node in running.values()] == [0] * len(running)
    assert supervisor.fired == asked
    check_result(federation, submitted.result())
