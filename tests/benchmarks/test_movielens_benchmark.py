"""The benchmark on movielens-1m, without that set: targets, keeping what is there, saying what failed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def movielens(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("movielens_1m")


def figures(federated: float = 0.33, alone: float = 0.27, same: float = 0.335, up: float = 1.01) -> Any:
    values = {"silo_alone": alone, "federated_private": federated, "pooled_same_noise": same}
    columns = ("silo_alone", "federated_private", "pooled_private", "pooled_same_noise")
    metrics = {name: {"ndcg@20": values.get(name, 0.4)} for name in (*columns, "pooled_plain", "popularity")}
    return {"metrics": metrics, "metrics_std": metrics, "secure_sum": {"ratio_to_float32": up}}


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({}, set()),
        ({"federated": 0.319, "alone": 0.2, "same": 0.319}, {"federated"}),
        ({"alone": 0.281}, {"above silo alone"}),
        ({"same": 0.3381}, {"distance to pooled, same noise"}),
        ({"same": 0.3219}, {"distance to pooled, same noise"}),
        ({"up": 1.11}, {"upload against float32"}),
    ],
)
def test_each_target_is_judged(movielens: ModuleType, changed: dict[str, float], missed: set[str]) -> None:
    checks = movielens.judge("4", figures(**changed))
    assert {what for what, check in checks.items() if not check["met"]} == missed
    assert checks["federated"]["at_least"] == 0.32


def test_targets_are_those_that_were_set(movielens: ModuleType) -> None:
    found = {epsilon: (t.federated, t.above_silo_alone) for epsilon, t in movielens.TARGETS.items()}
    assert found == {"2": (0.275, 0.04), "4": (0.32, 0.05), "8": (0.35, 0.04)}
    assert movielens.options("4", 3) == {
        "--silos": "4",
        "--delta": "1e-05",
        "--colluding-silos": "1",
        "--seeds": "3",
        "--epsilon": "4",
    }


def test_what_is_finished_is_kept_and_what_fails_is_said(
    movielens: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    told = figures(federated=0.28, alone=0.2, same=0.28)
    kept = {
        "state": "finished",
        "options": movielens.options("2", 1),
        "checks": movielens.judge("2", told),
    } | told
    target.write_text(json.dumps({"epsilons": {"2": kept}}))
    words = ["--data", str(tmp_path / "nothing-here"), "--epsilon", "2", "4", "--seeds", "1"]

    code = movielens.main([*words, "--out", str(tmp_path / "out"), "--json", str(target)])

    found = json.loads(target.read_text())
    assert code == 1
    assert found["all_met"] is False
    assert found["epsilons"]["2"] == kept
    assert found["epsilons"]["4"]["state"] == "failed"
    assert found["epsilons"]["4"]["exit_code"] == 6
    assert "nothing-here" in found["epsilons"]["4"]["message"]
    assert str(tmp_path) not in found["epsilons"]["4"]["message"]
    said = capsys.readouterr().out
    assert "epsilon 2: kept" in said
    assert "epsilon 4 FAILED, exit code 6" in said


def test_only_the_same_options_are_kept(movielens: ModuleType) -> None:
    record = {"state": "finished", "options": movielens.options("4", 1)}
    assert movielens.is_kept(record, movielens.options("4", 1))
    assert not movielens.is_kept(record, movielens.options("4", 3))
    assert not movielens.is_kept(record | {"state": "failed"}, movielens.options("4", 1))
    assert not movielens.is_kept(None, movielens.options("4", 1))


def test_without_data_it_says_where_to_name_it(
    movielens: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    with pytest.raises(SystemExit) as ended:
        movielens.main([])
    assert ended.value.code == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err
