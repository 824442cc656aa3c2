"""The benchmark of partners' features runs on a small real set and says what it measured."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.data
def test_lift_over_the_silo_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = os.environ.get("ARCHIPEL_DATA")
    if not root or not (Path(root) / "movielens-latest-small").is_dir():
        pytest.skip("ARCHIPEL_DATA names no folder with movielens-latest-small")
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = tmp_path / "figures.json"
    module = importlib.import_module("vertical_movielens")
    arguments = ["--set", "movielens-latest-small", "--seeds", "1", "--epsilon", "none", "8"]

    assert module.main([*arguments, "--json", str(target)]) == 0

    found = json.loads(target.read_text())
    run = found["runs"][0]
    assert run["with_partners"]["none"]["lift_percent"] > 20
    assert run["with_partners"]["none"]["ndcg@20"] > run["with_partners"]["8"]["ndcg@20"]
    alone, private = run["silo_alone"]["ndcg@20"], run["with_partners"]["8"]["ndcg@20"]
    assert run["with_partners"]["8"]["lift_percent"] == pytest.approx(100 * (private / alone - 1))
    assert "lift over alone" in capsys.readouterr().out


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("vertical_movielens").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err


def test_figures_of_real_processes_take_the_shape_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module, processes = (importlib.import_module(n) for n in ("vertical_movielens", "vertical_processes"))
    row = {"ndcg@20": 0.2, "recall@20": 0.1, "mrr@10": 0.3}

    def told(private: float) -> dict[str, object]:
        columns = {"silo_alone": row, "popularity": row, "federated_plain": row | {"ndcg@20": 0.3}}
        columns["federated_private"] = row | {"ndcg@20": private}
        weights = {name: {"feature_ridges": [10.0], "mixing": 0.5} for name in columns}
        return {
            "data": {"seeds": [0, 1], "coverage": 1.0},
            "privacy": {"noise_multiplier": 2.0},
            "metrics_by_seed": {"0": columns, "1": columns},
            "weights_by_seed": {"0": weights, "1": weights},
        }

    epsilons = ("none", "8", "4")
    runs = processes.runs_of({"8": told(0.25), "4": told(0.21)}, epsilons)
    found = module.summary(runs, epsilons, "movielens-1m")
    assert [round(found["lift_percent"][epsilon]["mean"], 6) for epsilon in epsilons] == [50.0, 25.0, 5.0]
    assert [found["lift_percent"][epsilon]["is_met"] for epsilon in epsilons] == [True, True, False]
    assert found["ndcg@20"]["epsilon 4"]["mean"] == pytest.approx(0.21)
