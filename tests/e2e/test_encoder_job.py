"""A vertical job with a private encoder of real processes over TLS, and kill -9 where it pays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from federation.legs.legs import legs, price_of
from federation.steps import Step
from policies.plans.vertical.encoder_drafting import EncoderDraft
from policies.plans.vertical.encoder_price import encoder_release_event
from silo.vertical.artefacts import BASIS_FILE, load_feature_basis
from silo.vertical.encoder.top_files import TOP_FILE, load_top_model
from tests.contracts.small_federation import nodes, state_on_disk, submit
from tests.e2e.test_vertical_job import SECONDS, is_finished
from tests.support.partners import NAMES, NUM_COMMON, make_partners
from tests.support.supervisor import Supervisor, around, charges, outbox_rows

pytestmark = pytest.mark.e2e

DIMENSIONS = 3


@pytest.mark.timeout(SECONDS + 60)
def test_numbers_cross_once_through_real_processes_even_if_silos_are_killed(
    tmp_path: Path,
) -> None:
    draft = EncoderDraft(dimensions=DIMENSIONS, steps=6, learning_rate=0.05)
    federation = make_partners(tmp_path, encoder=draft)
    kills = {NAMES[1]: around([Step.CHARGED, Step.CHARGED]), NAMES[2]: around([Step.LEG_STORED])}
    asked = {name: [kill.failpoint for kill in mine] for name, mine in kills.items()}
    with nodes(federation) as running, ThreadPoolExecutor(1) as aside:
        supervisor = Supervisor(federation, running, kills)
        supervisor.start()
        submitted = aside.submit(submit, federation)
        supervisor.run(
            lambda: submitted.done() and is_finished(federation, submitted.result()), seconds=SECONDS
        )
    assert {name: fired for name, fired in supervisor.fired.items() if fired} == asked
    job = submitted.result()
    state = state_on_disk(federation, job)
    assert state is not None
    assert state.outcome == "completed", state.reason
    top = load_top_model(federation.directory(NAMES[0]), job)
    rows, people = dict(top.user_ids), [f"person-{n}" for n in range(NUM_COMMON)]
    std = encoder_release_event(federation.plan).noise_multiplier
    for place, partner in enumerate(NAMES[1:]):
        exact = load_feature_basis(federation.directory(partner), job).features(people)
        columns = slice(place * DIMENSIONS, (place + 1) * DIMENSIONS)
        released = top.numbers[[rows[person] for person in people], columns]
        assert (released - exact).std() == pytest.approx(std, rel=0.3)
    for name in NAMES:
        due = {(leg.number, 1): price_of(federation.plan, leg, name) for leg in legs(federation.plan)}
        wanted = {place: event.model_dump(mode="json") for place, event in due.items() if event is not None}
        assert charges(federation.directory(name), job) == wanted
        assert outbox_rows(federation.directory(name), "SELECT * FROM secrets") == []
    assert not (federation.directory(NAMES[1]) / "jobs" / job / TOP_FILE).exists()
    assert not (federation.directory(NAMES[0]) / "jobs" / job / BASIS_FILE).exists()
