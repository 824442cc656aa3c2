"""``archipel demo --model autoencoder``: a few rounds of DP-SGD through the processes people run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.plans.price import num_values, schedule
from privacy.events import GaussianEvent
from silo.data.catalogue import Catalogue
from silo.demo.harness import COLUMNS
from silo.models.base import get_family
from silo.site import Site
from tests.support.small_set import NUM_ITEMS, write_set

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SILOS = ("shop-a", "shop-b", "shop-c", "shop-d")
ROUNDS = 3
EPSILON = 1  # so much noise that a value has a slot of its own


@dataclass(frozen=True)
class Ran:
    """What a demo left behind and said."""

    run: Path
    result: dict[str, Any]
    said: str

    @property
    def plan(self) -> Plan:
        return load_yaml(self.run / "plan.yaml", Plan)

    def in_job(self, name: str) -> list[Path]:
        """A file of the job in each silo."""
        return [next((self.run / "silos" / silo / "jobs").glob(f"*/{name}")) for silo in SILOS]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("autoencoder")
    data = write_set(root / "set")
    words = ["demo", "--data", data, "--silos", len(SILOS), "--model", "autoencoder", "--rounds", ROUNDS]
    command = [sys.executable, "-m", "cli", *map(str, words), "--epsilon", str(EPSILON)]
    command += ["--out", str(root / "run"), "--json", str(root / "result.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    return Ran(root / "run", json.loads((root / "result.json").read_text()), done.stdout + done.stderr)


def test_every_column_is_measured_and_keys_are_those_of_any_demo(ran: Ran) -> None:
    assert tuple(ran.result["metrics"]) == COLUMNS
    assert all(0 < column["ndcg@20"] < 1 for column in ran.result["metrics"].values())
    assert ran.result["model"] == {"family": "autoencoder"}
    assert ran.result["secure_sum"]["values"] == NUM_ITEMS + ROUNDS * num_values(ran.plan)
    for heading in ("federated, own noise", "5 local steps in each of 1 rounds"):
        assert heading in ran.said


def test_progress_tells_rounds_and_epsilon(ran: Ran) -> None:
    told = re.findall(r"round (\d) of 4, epsilon (\d\.\d\d) of 1 spent(, about \d+ s left)?", ran.said)
    assert {number for number, _, _ in told} <= {"1", "2", "3", "4"}
    assert told[-1][0] == "4"
    assert told[-1][2]
    spent = [float(epsilon) for _, epsilon, _ in told]
    assert spent == sorted(spent)
    assert 0 < spent[-1] <= EPSILON


def test_every_silo_has_the_same_model_and_paid_for_every_round(ran: Ran) -> None:
    assert len({path.read_bytes() for path in ran.in_job("model.safetensors")}) == 1
    assert len({path.read_bytes() for path in ran.in_job("checkpoint.safetensors")}) == 1
    for silo in SILOS:
        with Site(ran.run / "silos" / silo) as site:
            (account,) = site.ledger.state().accounts.values()
        assert [item.count for item in account.committed] == [1, ROUNDS]  # popularity, then the training
        assert all(isinstance(item.event, GaussianEvent) for item in account.committed)
        assert 0.97 * EPSILON < account.epsilon_spent <= EPSILON
        assert account.outstanding == ()


def test_each_weight_went_its_own_way(ran: Ran) -> None:
    """Integers damaged on their way (cut off, an offset left in) would push all weights alike."""
    catalogue = Catalogue.load(
        ran.run / "silos" / SILOS[0] / "catalogues" / f"{ran.plan.catalogue.sha256}.jsonl",
        ran.plan.catalogue.sha256,
    )
    before = get_family(ran.plan)(ran.plan, catalogue).initial_state()
    after = load_file(ran.in_job("checkpoint.safetensors")[0])
    moved = np.concatenate([(after[name] - before[name]).ravel() for name in after if name in before])
    assert moved.size == num_values(ran.plan)
    assert np.abs(moved).max() > 0
    assert abs(moved.mean()) < 0.2 * moved.std()
    assert schedule(ran.plan)[1].layout.max_level > 2**32
