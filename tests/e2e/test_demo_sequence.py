"""``archipel demo --model sequence``: the table of any trained model, by the last item of each person."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from policies.files import load_yaml
from policies.plans.models import SequenceModel
from policies.plans.plan import Plan
from policies.plans.price import num_values
from silo.demo.harness import COLUMNS
from tests.support.small_set import NUM_ITEMS, write_set

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SILOS, ROUNDS, EPSILON = 3, 2, 2.0


def test_every_column_is_measured_by_the_last_item(tmp_path: Path) -> None:
    words = ["demo", "--data", write_set(tmp_path / "set"), "--silos", SILOS, "--rounds", ROUNDS]
    words += ["--model", "sequence", "--architecture", "cnn", "--epsilon", EPSILON]
    words += ["--out", tmp_path / "run", "--json", tmp_path / "result.json"]
    command = [sys.executable, "-m", "cli", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=580)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    result = json.loads((tmp_path / "result.json").read_text())
    plan = load_yaml(tmp_path / "run" / "plan.yaml", Plan)
    assert isinstance(plan.model, SequenceModel)
    assert result["model"] == {"family": "sequence", "architecture": "cnn"}
    assert plan.model.architecture == "cnn"
    assert result["data"]["split"] == "last"
    assert result["secure_sum"]["values"] == NUM_ITEMS + ROUNDS * num_values(plan)
    assert tuple(result["metrics"]) == COLUMNS
    for column in result["metrics"].values():
        assert 0 < column["recall@20"] < 1
        # One item is held out of each person, so of twenty at most one is right.
        assert column["hit_rate@10"] == pytest.approx(column["recall@10"])
    for spent in result["privacy"]["per_silo_spent"].values():
        assert 0.97 * EPSILON < spent["epsilon"] <= EPSILON
    assert "set, sequence (cnn), last item held out" in said
    assert "--architecture cnn" in said
