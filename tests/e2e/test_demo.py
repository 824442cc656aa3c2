"""``archipel demo`` as people run it: what runs, over what, what it leaves, what it measures.

One run on a copy of the source from which the in-process transport is deleted serves all tests here.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from policies.charters.charter import Charter
from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.plans.price import reserved_events, schedule
from privacy.events import GaussianEvent
from silo.demo import harness
from silo.demo.dataset import DemoData, load_set, prepare
from silo.demo.settings import DemoSettings
from silo.demo.simulation import Simulation, simulate
from silo.demo.world import World
from silo.evaluation import METRICS
from silo.models.recommender import Recommender
from silo.site import Site
from tests.support.recorded_demo import HUB, SILOS, RecordedDemo, recorded_demo
from tests.support.small_set import NUM_ITEMS, NUM_USERS

COLUMNS = tuple(name for name in harness.COLUMNS if name != "federated_local_noise")  # gradients only

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> RecordedDemo:
    return recorded_demo(tmp_path_factory)


@pytest.fixture(scope="module")
def settings(demo: RecordedDemo) -> DemoSettings:
    return DemoSettings(
        data=demo.data, format=None, min_rating=None, num_silos=len(SILOS), epsilon=4.0, delta=1e-5,
        colluding_silos=1, family="item-graph", split="random", seed=0, num_seeds=1, out=demo.run,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(settings: DemoSettings) -> DemoData:
    """What only the harness has: the same set, split by the same seed."""
    return prepare(settings, load_set(settings, 0), 0)


@pytest.fixture(scope="module")
def plan(demo: RecordedDemo) -> Plan:
    return load_yaml(demo.run / "plan.yaml", Plan)


# ── separate processes over mutual TLS ──────────────────────────────────────────────────────────────────────


def test_it_ends_well_and_leaves_nothing_running(demo: RecordedDemo) -> None:
    assert demo.seen["exit_code"] == 0, (demo.root / "output.txt").read_text()
    assert demo.seen["left"] == []
    still = [pid for pid in demo.seen["pids"].values() if psutil.pid_exists(pid)]
    assert [pid for pid in still if str(demo.run) in " ".join(psutil.Process(pid).cmdline())] == []


def test_coordinator_and_agents_are_processes_of_their_own(demo: RecordedDemo) -> None:
    pids = demo.seen["pids"]
    assert set(pids) == {HUB, *SILOS}
    assert len({demo.seen["demo"], *pids.values()}) == 6
    assert set(demo.seen["parents"].values()) == {demo.seen["demo"]}
    assert set(pids.values()) < set(demo.seen["descendants"])


def test_each_agent_holds_one_connection_to_the_coordinator_and_listens_on_nothing(
    demo: RecordedDemo,
) -> None:
    sockets, port = demo.seen["sockets"], demo.seen["port"]
    for silo in SILOS:
        assert [s["status"] for s in sockets[silo]] == [psutil.CONN_ESTABLISHED], silo
        assert sockets[silo][0]["remote"] == ["127.0.0.1", port]


def test_the_coordinator_listens_on_its_port_alone_and_dials_nobody(demo: RecordedDemo) -> None:
    sockets, port = demo.seen["sockets"][HUB], demo.seen["port"]
    listening = [s for s in sockets if s["status"] == psutil.CONN_LISTEN]
    assert [s["local"] for s in listening] == [["127.0.0.1", port]]
    assert {s["local"][1] for s in sockets} == {port}
    accepted = {s["remote"][1] for s in sockets if s["status"] == psutil.CONN_ESTABLISHED}
    assert accepted >= {demo.seen["sockets"][silo][0]["local"][1] for silo in SILOS}


def test_the_connections_are_mutual_tls(demo: RecordedDemo) -> None:
    charter = load_yaml(demo.run / "charter.yaml", Charter)
    member, stranger = demo.seen["members_answer"], demo.seen["strangers_answer"]
    presented = hashlib.sha256(bytes.fromhex(member["certificate"])).hexdigest()
    assert presented == charter.coordinator.certificate_sha256
    assert member["bytes"] > 0
    assert stranger.get("bytes", 0) == 0
    assert len({party.certificate_sha256 for party in charter.parties()}) == 5


def test_it_ran_without_the_in_process_transport(demo: RecordedDemo) -> None:
    assert not (demo.tree / "federation" / "transport" / "inprocess.py").exists()
    for who in (HUB, "shop-a", "worker"):
        modules = demo.modules(who)
        assert "federation.transport.inprocess" not in modules
        ours = [n for n in modules if n.split(".")[0] in ("privacy", "policies", "federation", "silo")]
        files = {modules[name] for name in ours if modules[name]}
        assert files, who
        assert all(Path(str(file)).is_relative_to(demo.tree) for file in files)


# ── where rows are ──────────────────────────────────────────────────────────────────────────────────────────


def test_held_out_rows_are_in_no_file_of_the_run(demo: RecordedDemo, data: DemoData) -> None:
    held_out, kept = _pairs(data, data.held_out), _pairs(data, data.train)
    assert len(held_out) > 500
    found: set[tuple[str, str]] = set()
    for path in _files(demo.run):
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
            found |= set(zip(frame["user_id"], frame["item_id"], strict=True))
    assert found == kept
    assert not found & held_out


def test_no_file_but_a_silos_own_table_names_a_user(demo: RecordedDemo) -> None:
    tables = {demo.silo(name) / "data" / "purchases.parquet" for name in SILOS}
    named = {path for path in _files(demo.run) if b"-of-the-test" in path.read_bytes()}
    named |= {path for path in _files(demo.run) if path.suffix == ".parquet"}
    assert named == tables
    assert b"-of-the-test" not in (demo.root / "result.json").read_bytes()
    assert b"-of-the-test" not in (demo.root / "output.txt").read_bytes()


def test_no_user_is_in_two_silos(demo: RecordedDemo) -> None:
    users = [set(pl.read_parquet(demo.silo(n) / "data" / "purchases.parquet")["user_id"]) for n in SILOS]
    assert sum(map(len, users)) == len(set.union(*users)) == NUM_USERS
    assert len({len(some) for some in users}) > 1


# ── what it reports ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_json_has_every_key(demo: RecordedDemo, plan: Plan) -> None:
    result = demo.result
    assert result["data"].keys() >= {"users", "items", "interactions", "silos"}
    assert (result["data"]["users"], result["data"]["items"]) == (NUM_USERS, NUM_ITEMS)
    assert result["data"]["users_by_silo"].keys() == set(SILOS)
    privacy = result["privacy"]
    assert privacy.keys() >= {
        "unit", "neighboring_relation", "target_epsilon", "target_delta", "epsilon_pld", "noise_placement",
        "colluding_silos", "max_silos_per_user", "noise_multiplier", "per_silo_spent",
    }  # fmt: skip
    assert privacy["per_silo_spent"].keys() == set(SILOS)
    for spent in privacy["per_silo_spent"].values():
        assert spent.keys() >= {"epsilon", "delta", "accountant"}
    assert privacy["noise_multiplier"] == plan.privacy.noise_multiplier
    for table in ("metrics", "metrics_std"):
        assert tuple(result[table]) == COLUMNS
        for column in result[table].values():
            assert set(column) == set(METRICS)
            assert all(math.isfinite(value) for value in column.values())
    assert result["secure_sum"].keys() >= {
        "values", "bits", "values_per_slot", "bytes_up_per_silo", "bytes_down_per_silo", "ratio_to_float32",
    }  # fmt: skip
    assert result["secure_sum"]["values"] == NUM_ITEMS * (NUM_ITEMS + 1) // 2
    assert min(result["seconds"].values()) > 0


def test_every_silo_wrote_the_same_model_and_paid_for_it(demo: RecordedDemo) -> None:
    files = [demo.silo(name) / "jobs" / demo.job / "model.safetensors" for name in SILOS]
    assert len({path.read_bytes() for path in files}) == 1
    for name in SILOS:
        with Site(demo.silo(name)) as site:
            (account,) = site.ledger.state().accounts.values()
        assert demo.result["privacy"]["per_silo_spent"][name]["epsilon"] == account.epsilon_spent
        assert 3.99 < account.epsilon_spent <= 4.0
        assert account.epsilon_reserved <= account.epsilon_spent


def test_a_corrupted_model_file_changes_its_column_and_only_that(
    demo: RecordedDemo,
    settings: DemoSettings,
    data: DemoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "run"
    shutil.copytree(demo.run, root)
    world = World(root, settings)
    asked: list[Mapping[str, Simulation]] = []
    learned: dict[str, Recommender] = {}

    def learn_once(wanted: Mapping[str, Simulation], _: object) -> dict[str, Recommender]:
        asked.append(wanted)
        if not learned:
            learned.update({name: simulate(one) for name, one in wanted.items()})
        return dict(learned)

    monkeypatch.setattr(harness, "_learn", learn_once)
    before = harness.measure(world, data, demo.job, lambda _: None)
    path = world.silo("shop-a") / "jobs" / demo.job / "model.safetensors"
    _permute_scores(path)
    after = harness.measure(world, data, demo.job, lambda _: None)

    assert before["federated_private"] == demo.result["metrics"]["federated_private"]
    assert after["federated_private"]["ndcg@20"] < before["federated_private"]["ndcg@20"] - 0.01
    first, second = asked
    assert first.keys() == second.keys()
    for one, other in ((first[name], second[name]) for name in first):
        assert (one.plan, one.noise, one.is_clamped) == (other.plan, other.noise, other.is_clamped)
        for rows, again in zip(one.parties, other.parties, strict=True):
            assert rows.frame.equals(again.frame)
    assert {name for name in after if after[name] != before[name]} == {"federated_private"}
    for name in ("pooled_plain", "popularity"):
        assert after[name] == pytest.approx(demo.result["metrics"][name], abs=1e-6)


# ── epsilon, against a second accountant ────────────────────────────────────────────────────────────────────


def test_the_plans_epsilon_holds_by_the_exact_gaussian_mechanism(demo: RecordedDemo, plan: Plan) -> None:
    """The one release of the demo is a Gaussian mechanism, whose privacy curve is known in closed form."""
    shape, privacy = schedule(plan)[0], plan.privacy
    num_honest = plan.num_silos - privacy.colluding_silos
    multiplier = shape.share_std * math.sqrt(num_honest) / (privacy.grid * privacy.max_silos_per_user)
    exact = _analytic_gaussian_epsilon(multiplier, privacy.target_delta)
    (reserved,) = reserved_events(plan)
    assert isinstance(reserved.event, GaussianEvent)
    assert reserved.count == 1
    assert reserved.event.noise_multiplier == pytest.approx(multiplier, rel=1e-9)
    reported = demo.result["privacy"]
    for name in SILOS:
        assert exact <= reported["per_silo_spent"][name]["epsilon"] <= privacy.target_epsilon
    assert exact <= reported["epsilon_pld"] <= exact + 0.02
    # Not by slack alone: with a twentieth less noise the promise would be broken under the plan's filter.
    assert _zcdp_epsilon(0.95 * multiplier, 0.99 * privacy.target_delta) > privacy.target_epsilon
    assert _zcdp_epsilon(multiplier, 0.99 * privacy.target_delta) == pytest.approx(
        reported["per_silo_spent"]["shop-a"]["epsilon"], rel=1e-4
    )


def test_opacus_accountant_agrees_with_the_ledger(demo: RecordedDemo, plan: Plan) -> None:
    from opacus.accountants.analysis import rdp

    (reserved,) = reserved_events(plan)
    assert isinstance(reserved.event, GaussianEvent)
    orders = [1 + step / 50 for step in range(1, 2000)]
    curve = rdp.compute_rdp(q=1.0, noise_multiplier=reserved.event.noise_multiplier, steps=1, orders=orders)
    epsilon, _ = rdp.get_privacy_spent(orders=orders, rdp=curve, delta=0.99 * plan.privacy.target_delta)
    spent = demo.result["privacy"]["per_silo_spent"]["shop-a"]["epsilon"]
    assert spent == pytest.approx(float(epsilon), rel=1e-3)


def _analytic_gaussian_epsilon(multiplier: float, delta: float) -> float:
    """Balle and Wang 2018, theorem 8: the least epsilon of a Gaussian mechanism of that noise multiplier."""

    def excess(epsilon: float) -> float:
        half, shift = 1 / (2 * multiplier), epsilon * multiplier
        return float(norm.cdf(half - shift) - math.exp(epsilon + norm.logcdf(-half - shift)) - delta)

    return float(brentq(excess, 0, 100))


def _zcdp_epsilon(multiplier: float, delta: float) -> float:
    rho = 1 / (2 * multiplier**2)
    alphas = 1 + np.geomspace(1e-3, 1e4, 200_000)
    return float(np.min(rho * alphas + np.log(1 / (alphas * delta)) / (alphas - 1) + np.log1p(-1 / alphas)))


def _permute_scores(path: Path) -> None:
    """A valid model file whose scores belong to other items."""
    model = Recommender.load(path)
    order = np.random.default_rng(0).permutation(model.num_items)
    tables = {"bias": model.bias[order], "popularity": model.popularity[order]}
    if model.right is None:
        tables["left"] = model.left[:, order]
    else:
        tables["right"] = model.right[order]
    replace(model, **tables).save(path)


def _pairs(data: DemoData, interactions: object) -> set[tuple[str, str]]:
    frame, users = interactions.frame, interactions.user_ids  # type: ignore[attr-defined]
    items = data.catalogue.item_ids
    return {
        (users[user], items[item])
        for user, item in zip(frame["user_index"], frame["item_index"], strict=True)
    }


def _files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file()]
