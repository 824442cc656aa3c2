"""The autoencoder on movielens-1m, without that set: which runs, targets, keeping, saying what failed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXIT_DATA = 6


@pytest.fixture
def movielens(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("movielens_1m_autoencoder")


def record(run: Any, federated: float, *, popularity: float = 0.19, same: float | None = None) -> Any:
    values = {
        "silo_alone": 0.2,
        "federated_private": federated,
        "pooled_same_noise": federated if same is None else same,
        "popularity": popularity,
    }
    return {
        "state": "finished",
        "options": run.options,
        "metrics": {column: {"ndcg@20": value} for column, value in values.items()},
        "seconds": {"job": 60.0},
        "secure_sum": {"bytes_up_per_silo": 2_000_000},
    }


def records(module: ModuleType, family: str, epsilon: str, federated: list[float], **more: Any) -> Any:
    runs = [module.Run(family, epsilon, seed) for seed in range(len(federated))]
    return {run.name: record(run, value, **more) for run, value in zip(runs, federated, strict=True)}


def test_every_epsilon_and_seed_is_a_federation_and_the_item_graph_stands_beside_epsilon_1(
    movielens: ModuleType,
) -> None:
    names = [run.name for run in movielens.wanted(movielens.EPSILONS, 3)]
    assert len(names) == len(set(names)) == 12
    assert [name for name in names if name.startswith("item-graph")] == [
        f"item-graph-epsilon-1-seed-{seed}" for seed in range(3)
    ]
    assert movielens.Run("autoencoder", "2", 1).options == {
        "--model": "autoencoder",
        "--silos": "4",
        "--delta": "1e-05",
        "--colluding-silos": "1",
        "--epsilon": "2",
        "--seed": "1",
    }


def test_mean_and_spread_are_over_the_finished_seeds(movielens: ModuleType) -> None:
    found = records(movielens, "autoencoder", "2", [0.2, 0.3])
    failed = movielens.Run("autoencoder", "2", 2)
    found[failed.name] = {"state": "failed", "options": failed.options}
    about = movielens.summarise(found)["autoencoder"]["2"]
    assert about["seeds"] == [0, 1]
    assert about["columns"]["federated_private"]["mean"] == pytest.approx(0.25)
    assert about["columns"]["federated_private"]["std"] == pytest.approx(0.05 * 2**0.5)
    assert "federated_local_noise" not in about["columns"]


@pytest.mark.parametrize(
    ("epsilon", "changed", "missed"),
    [
        ("2", {"federated": 0.215}, set()),
        ("2", {"federated": 0.205}, {"above popularity"}),
        ("4", {"federated": 0.235}, set()),
        ("4", {"federated": 0.225}, {"above popularity"}),
        ("4", {"federated": 0.24, "same": 0.251}, {"distance to pooled, same noise"}),
        ("4", {"federated": 0.24, "same": 0.229}, {"distance to pooled, same noise"}),
        ("8", {"federated": 0.1}, set()),
    ],
)
def test_each_target_is_judged(
    movielens: ModuleType, epsilon: str, changed: dict[str, float], missed: set[str]
) -> None:
    federated = changed.pop("federated")
    summary = movielens.summarise(records(movielens, "autoencoder", epsilon, [federated] * 3, **changed))
    checks = movielens.judge(summary)[epsilon]
    assert {what for what, check in checks.items() if not check["met"]} == missed


@pytest.mark.parametrize(("graph", "is_met"), [(0.24, True), (0.26, False)])
def test_at_epsilon_1_the_item_graph_is_to_be_beaten(
    movielens: ModuleType, graph: float, is_met: bool
) -> None:
    both = records(movielens, "autoencoder", "1", [0.25]) | records(movielens, "item-graph", "1", [graph])
    check = movielens.judge(movielens.summarise(both))["1"]["above item-graph"]
    assert check["measured"] == pytest.approx(0.25 - graph)
    assert check["met"] is is_met


def test_what_is_finished_is_kept_and_what_fails_is_said(
    movielens: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    kept = records(movielens, "autoencoder", "2", [0.28])
    target.write_text(json.dumps({"runs": kept}))
    words = ["--data", str(tmp_path / "nothing-here"), "--epsilon", "2", "4", "--seeds", "1"]

    code = movielens.main([*words, "--out", str(tmp_path / "out"), "--json", str(target)])

    found = json.loads(target.read_text())
    assert code == 1
    assert found["all_met"] is False
    assert found["runs"]["autoencoder-epsilon-2-seed-0"] == kept["autoencoder-epsilon-2-seed-0"]
    failed = found["runs"]["autoencoder-epsilon-4-seed-0"]
    assert (failed["state"], failed["exit_code"]) == ("failed", EXIT_DATA)
    assert "nothing-here" in failed["message"]
    assert str(tmp_path) not in failed["message"]
    assert list(found["summary"]["autoencoder"]) == ["2"]
    said = capsys.readouterr().out
    assert "autoencoder-epsilon-2-seed-0: kept" in said
    assert f"autoencoder-epsilon-4-seed-0 FAILED, exit code {EXIT_DATA}" in said


def test_quick_is_one_federation(
    movielens: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run_demo(name: str, data: Path, out: Path, options: dict[str, str]) -> Any:
        asked.append(name)
        return record(movielens.Run("autoencoder", "4", 0), 0.24)

    monkeypatch.setattr(movielens, "run_demo", run_demo)
    target = tmp_path / "figures.json"
    assert movielens.main(["--data", str(tmp_path), "--quick", "--json", str(target)]) == 0
    assert asked == ["autoencoder-epsilon-4-seed-0"]
    assert json.loads(target.read_text())["all_met"] is True
