"""``archipel demo --partition vertical`` as people run it: who could read what, what it leaves and measures.

One run of real processes serves all tests here. Each silo's processes run where the directories of the other
silos are empty (:mod:`tests.support.separate_views`).
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from silo.demo.vertical import harness
from silo.demo.vertical.dataset import VerticalData, prepare
from silo.demo.vertical.settings import VerticalSettings
from silo.demo.world import World
from silo.evaluation import METRICS
from silo.site import Site
from silo.vertical.artefacts import BASIS_FILE, MODEL_FILE, load_label_model
from silo.vertical.joint.weights import chosen_weights
from tests.support.separate_views import environment, read_notes

SILOS = ("shop", "content-platform", "social-network")
TABLES = dict(zip(SILOS, ("purchases", "views", "follows"), strict=True))
PEOPLE, EPSILON, DELTA = 300, 6.0, 1e-5

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Ran:
    """A demo that has ended."""

    root: Path
    exit_code: int

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def output(self) -> str:
        return (self.root / "output.txt").read_text()

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.root / "result.json").read_text()))

    @property
    def job(self) -> str:
        return str(json.loads((self.run / "job.json").read_text())["job"])

    def silo(self, name: str) -> Path:
        return self.run / "silos" / name


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("vertical")
    words = [
        *(sys.executable, "-m", "cli", "demo", "--partition", "vertical", "--people", str(PEOPLE)),
        *("--epsilon", str(EPSILON), "--delta", str(DELTA)),
        *("--out", str(root / "run"), "--json", str(root / "result.json")),
    ]
    with (root / "output.txt").open("wb") as output:
        done = subprocess.run(
            words, cwd=root, env=environment(root / "views"), stdout=output, stderr=output, check=False
        )
    return Ran(root, done.returncode)


@pytest.fixture(scope="module")
def settings(demo: Ran) -> VerticalSettings:
    return VerticalSettings(
        data=None, format=None, min_rating=None, epsilon=EPSILON, delta=DELTA, seed=0, num_seeds=1,
        out=demo.run, people=PEOPLE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(settings: VerticalSettings) -> VerticalData:
    """What only the harness has."""
    return prepare(settings, 0)


@pytest.fixture(scope="module")
def plan(demo: Ran) -> Plan:
    return load_yaml(demo.run / "plan.yaml", Plan)


def test_it_ends_well(demo: Ran) -> None:
    assert demo.exit_code == 0, demo.output


# ── who could read what ─────────────────────────────────────────────────────────────────────────────────────


def test_no_process_of_a_silo_could_open_another_silos_file(demo: Ran) -> None:
    notes = read_notes(demo.root / "views")
    refused = [note["refused"] for note in notes if "refused" in note]
    if refused:
        pytest.skip(f"this machine lets nobody make a mount namespace: {refused[0]}")
    for name in SILOS:
        (agent,) = (n for n in notes if n["own"] == name and {"silo", "run"} <= set(n["words"]))
        assert agent["others"] == sorted(set(SILOS) - {name})
        assert len(agent["files"]) == 2  # there they are, for everybody else
        assert agent["readable"] == []
    assert [note["words"] for note in notes if note["readable"]] == []
    assert demo.exit_code == 0, demo.output


def test_each_directory_holds_its_own_rows_and_nobody_holds_those_held_out(
    demo: Ran, data: VerticalData
) -> None:
    tables = {path: pl.read_parquet(path) for path in demo.run.rglob("*.parquet")}
    assert set(tables) == {demo.silo(name) / "data" / f"{TABLES[name]}.parquet" for name in SILOS}
    for name in SILOS:
        assert tables[demo.silo(name) / "data" / f"{TABLES[name]}.parquet"].equals(data.rows_of(name))
    held_out = data.users.held_out.tocoo()
    pairs = {
        (data.people[user], data.catalogue.item_ids[item])
        for user, item in zip(held_out.row, held_out.col, strict=True)
    }
    assert len(pairs) > 500
    assert not pairs & {pair for table in tables.values() for pair in table.iter_rows()}


def test_no_other_file_of_a_party_names_a_person(demo: Ran, data: VerticalData) -> None:
    parties = [demo.run / "coordinator", *map(demo.silo, SILOS)]
    files = [path for party in parties for path in party.rglob("*") if path.is_file()]
    others = [path for path in files if path.suffix != ".parquet"]
    assert others
    assert [path for path in others if any(_names(part, data.people) for part in _parts(path))] == []


def test_a_name_is_found_among_words_in_a_cell_and_not_in_a_key(data: VerticalData, tmp_path: Path) -> None:
    """Four letters turn up by themselves in megabytes of base64: what is looked for stands alone."""
    first, second, third = data.people[:3]
    assert _names(f"coin of {first}: heads".encode(), data.people)
    assert _names(f'\xff"{first}","{second}",{third}\x00'.encode("latin-1"), data.people)
    assert not _names(f"Yx{first}/+{second}Qg==".encode(), data.people)
    with closing(sqlite3.connect(tmp_path / "some.db")) as db, db:
        db.execute("CREATE TABLE told (person TEXT, item TEXT)")
        db.execute("INSERT INTO told VALUES (?, ?)", (first, second))
    assert any(_names(part, data.people) for part in _parts(tmp_path / "some.db"))


def _parts(path: Path) -> Iterator[bytes]:
    """A file's content, a database's by its cells: on its pages they stand without anything between them."""
    if path.suffix != ".db":
        yield path.read_bytes()
        return
    with closing(sqlite3.connect(path)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in db.execute(f'SELECT * FROM "{table}"'):
                yield from (cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)


def _names(content: bytes, people: tuple[str, ...]) -> bool:
    """Whether a part names anybody; a few names among unreadable bytes may be chance."""
    known = {person.encode() for person in people}
    found = known & set(re.findall(rb"(?<![\w+/=-])u\d+(?![\w+/=-])", content))
    return len(found) > (0 if _is_text(content) else 2)


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_the_model_stays_at_the_label_silo_and_each_basis_where_it_was_made(demo: Ran) -> None:
    for name in SILOS:
        left = {path.name for path in (demo.silo(name) / "jobs" / demo.job).glob("*.safetensors")}
        assert left == ({MODEL_FILE} if name == SILOS[0] else {BASIS_FILE})


# ── what it reports ─────────────────────────────────────────────────────────────────────────────────────────


def test_people_in_session_are_answered_what_the_harness_takes_for_everybody(demo: Ran) -> None:
    sessions = demo.result["sessions"]
    assert sessions["asked"] == sessions["answered"] == 16
    assert sessions["largest_difference"] < 1e-9
    served = json.loads((demo.run / "list-in-session.json").read_text())
    assert served["partners"] == dict.fromkeys(SILOS[1:], "answered")
    assert served["serving_mode"] == "consented_session"
    assert len(served["items"]) == 10


def test_the_json_has_the_demos_keys(demo: Ran, plan: Plan) -> None:
    result = demo.result
    assert result["data"] | {
        "users": PEOPLE, "silos": 3, "label_items": 5, "coverage": 1.0, "partition": "vertical",
    } == result["data"]  # fmt: skip
    assert result["data"]["users_by_silo"] == {"shop": 225, "content-platform": 210, "social-network": 180}
    assert result["privacy"]["unit_by_silo"]["social-network"] == "user_row"
    assert result["privacy"]["serving"] == "consented_session"
    for table in ("metrics", "metrics_std"):
        assert tuple(result[table]) == harness.COLUMNS
        for column in result[table].values():
            assert set(column) == set(METRICS)
            assert all(math.isfinite(value) for value in column.values())
    alone, private = (result["metrics"][name]["ndcg@20"] for name in ("silo_alone", "federated_private"))
    assert result["lift_percent"]["federated_private"]["mean"] == pytest.approx(100 * (private / alone - 1))
    assert plan.alignment is not None
    assert result["alignment"]["spine_slots"] == sum(plan.alignment.capacities.values())
    assert min(result["seconds"].values()) > 0
    assert min(way for silo in result["traffic"]["bytes_by_silo"].values() for way in silo.values()) > 10_000


def test_lists_are_made_with_the_weights_that_the_table_measured(demo: Ran) -> None:
    kept = chosen_weights(demo.silo(SILOS[0]) / "jobs" / demo.job)
    assert kept is not None
    measured = demo.result["weights_by_seed"]["0"]["federated_private"]
    assert asdict(kept) == measured | {"feature_ridges": tuple(measured["feature_ridges"])}
    assert "archipel recommend" in demo.output


def test_every_silo_spent_what_its_role_costs(demo: Ran, plan: Plan) -> None:
    for name in SILOS:
        with Site(demo.silo(name)) as site:
            (account,) = site.ledger.state().accounts.values()
        assert demo.result["privacy"]["per_silo_spent"][name]["epsilon"] == account.epsilon_spent
        assert account.epsilon_spent == pytest.approx(plan_epsilon(plan, silo=name))
    spent = {name: found["epsilon"] for name, found in demo.result["privacy"]["per_silo_spent"].items()}
    assert spent["shop"] < EPSILON / 3
    assert EPSILON - 0.01 < spent["content-platform"] <= EPSILON
    assert EPSILON - 0.01 < spent["social-network"] <= EPSILON


def test_what_it_says_names_consent_spending_and_who_saw_what(demo: Ran) -> None:
    said = " ".join(demo.output.replace("│", " ").split())
    for words in (
        "every person of this demo consents",
        "Who got to see what",
        "Epsilon spent, by each silo's own ledger: shop ",
        "label silo alone",
        "with partners (private)",
    ):
        assert words in said


def test_other_moments_at_the_label_silo_change_its_column_and_only_that(
    demo: Ran, settings: VerticalSettings, data: VerticalData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(asked: Mapping[str, harness.Asked], _: object) -> dict[str, harness.Column]:
        return {name: harness.judge(*one) for name, one in asked.items()}

    monkeypatch.setattr(harness, "_judge_all", in_this_process)
    world, path = World(demo.run, settings), demo.silo("shop") / "jobs" / demo.job / MODEL_FILE
    before = harness.measure(world, data, demo.job, lambda _: None).columns
    model, kept = load_label_model(demo.silo("shop"), demo.job), path.read_bytes()
    order = np.random.default_rng(0).permutation(model.items.size)
    for moments in model.partners.values():
        moments.cross[:] = moments.cross[order]
    model.save(path)
    try:
        after = harness.measure(world, data, demo.job, lambda _: None).columns
    finally:
        path.write_bytes(kept)
    told = demo.result["metrics"]
    assert before["federated_private"] == pytest.approx(told["federated_private"], abs=1e-6)
    assert {name for name in before if before[name] != after[name]} == {"federated_private"}
