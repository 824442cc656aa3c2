"""Order through the whole product: commands, processes and wires, from a proposal to a list and an audit."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from federation.messages import PostKind
from federation.rounds import JobState
from policies.files import load_yaml
from policies.plans.models import SequenceModel
from policies.plans.plan import Plan
from policies.plans.price import num_values
from silo.finished import load_finished
from silo.models.sequence.recommender import SequenceRecommender
from silo.rows import load_rows
from tests.contracts.small_federation import (
    ROOT,
    SmallFederation,
    command,
    make_small_federation,
    nodes,
    wait_until,
)
from tests.support.real_jobs import SECONDS, check_charges, check_one_checkpoint, wait_for_end

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * SECONDS)]

ROUNDS, EPSILON = 2, 3.0
TRAINING = ["--features", "6", "--hidden", "4", "--places", "4", "--rounds", str(ROUNDS)]


@dataclass(frozen=True)
class Ran:
    """A job that has ended; its processes too."""

    federation: SmallFederation
    plan: Plan
    state: JobState

    def directory(self, name: str) -> Path:
        return self.federation.directory(name)

    def typed(self, name: str, *words: str) -> dict[str, Any]:
        """What a command of a silo says to machines."""
        return typed(*words, "--dir", str(self.directory(name)))

    def model(self, name: str) -> SequenceRecommender:
        found = load_finished(self.directory(name), self.state.job).recommender
        assert isinstance(found, SequenceRecommender)
        return found


def typed(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [*command(*words), "--json", "-"], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module", params=["transformer", "masked"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    federation = make_small_federation(tmp_path_factory.mktemp(request.param), is_timed=True)
    leader = str(federation.directory(federation.leader))
    proposed = federation.root / "sequence.yaml"
    typed(
        *("plan", "new", "--family", "sequence", "--architecture", request.param, *TRAINING),
        *("--silos", ",".join(federation.names), "--catalogue", str(federation.catalogue_path)),
        *("--epsilon", str(EPSILON), "--delta", "1e-6", "--holdout", "last", "--max-users-per-silo", "64"),
        *("--max-silos-per-user", "1", "--max-interactions-per-user", "20"),
        *("--out", str(proposed), "--dir", leader),
    )
    federation.catalogue.save(federation.directory(federation.leader) / "catalogues")
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        wait_until(lambda: "listen" in running["hub"].said(), seconds=SECONDS)
        job = str(typed("job", "submit", str(proposed), "--dir", leader)["job"])
        state = wait_for_end(federation, job)
        assert [node.end() for node in running.values()] == [0] * len(running)
    return Ran(federation, load_yaml(proposed, Plan), state)


def test_every_silo_takes_the_plan_and_ends_with_the_same_network(ran: Ran) -> None:
    state, model = ran.state, ran.plan.model
    assert (state.outcome, state.burned, state.num_rounds) == ("completed", 0, ROUNDS + 1)
    assert [shape.purpose for shape in state.shapes] == ["popularity", *["training"] * ROUNDS]
    for name in ran.federation.names:
        assert state.post(PostKind.DENIAL, name) is None
    assert isinstance(model, SequenceModel)
    assert state.shapes[1].values == model.network.num_weights == num_values(ran.plan)
    check_one_checkpoint(ran.federation, state.job)
    for name in ran.federation.names:
        assert ran.model(name).metadata["architecture"] == model.architecture


def test_every_round_was_charged_once_and_within_the_promise(ran: Ran) -> None:
    check_charges(ran.federation, ran.state)
    for name in ran.federation.names:
        (budget,) = ran.typed(name, "silo", "status")["budgets"]
        assert 0.97 * EPSILON < budget["spent"] <= EPSILON


def test_the_last_item_of_each_person_is_what_a_silo_measures_by(ran: Ran) -> None:
    name = ran.federation.names[1]
    finished = load_finished(ran.directory(name), ran.state.job)
    rows = load_rows(ran.directory(name), ran.plan, finished.dataset)
    assert np.diff(rows.held_out.matrix().indptr).tolist() == [1] * rows.held_out.num_users
    newest = ran.federation.rows[name].group_by("user_id", maintain_order=True).last()
    user, item = newest.row(0, named=True)["user_id"], newest.row(0, named=True)["item_id"]
    (held,) = rows.held_out.history(user).indices
    assert ran.federation.catalogue.items[held].item_id == item
    measured = ran.typed(name, "evaluate")
    assert measured["metrics"]["recall@10"] > 0


def test_lists_follow_the_order_of_a_history(ran: Ran) -> None:
    name = ran.federation.names[2]
    user = ran.federation.rows[name]["user_id"][0]
    found = ran.typed(name, "recommend", "--user", user, "-k", "5")
    history = ran.federation.rows[name].filter(user_id=user)["item_id"].to_list()
    assert found["fallback"] is None
    assert len(found["items"]) == 5
    assert not {item["item_id"] for item in found["items"]} & set(history)
    model = ran.model(name)
    place = {item.item_id: index for index, item in enumerate(ran.federation.catalogue.items)}
    in_order = model.scores(one_history([place[item] for item in history], model.num_items))[0]
    backwards = model.scores(one_history([place[item] for item in history[::-1]], model.num_items))[0]
    assert np.abs(in_order - backwards).max() > 1e-6
    for item in found["items"]:
        assert item["score"] == pytest.approx(in_order[place[item["item_id"]]], rel=1e-4)


def one_history(items: list[int], num_items: int) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(items)), items, [0, len(items)]), shape=(1, num_items))


def test_an_auditor_finds_nothing(ran: Ran) -> None:
    charter = str(ran.federation.parties.hub.directory / "charter.yaml")
    for name in ran.federation.names:
        assert ran.typed(name, "audit", "verify", "--charter", charter)["findings"] == []
