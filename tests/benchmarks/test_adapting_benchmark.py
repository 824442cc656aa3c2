"""The benchmark of following new rows runs on a small real set, and following is worth something on it."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.data
def test_models_are_measured_with_old_and_new_histories(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = os.environ.get("ARCHIPEL_DATA")
    if not root or not (Path(root) / "movielens-100k").is_dir():
        pytest.skip("ARCHIPEL_DATA names no folder with movielens-100k")
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = tmp_path / "figures.json"
    assert importlib.import_module("adapting").main(["--seeds", "1", "--json", str(target)]) == 0
    (seed,) = json.loads(target.read_text())["seeds"]
    assert set(seed["models"]) == {"federated", "local popularity", "local item-knn", "local item-graph"}
    # The drift that the command reports is of the very lists that are measured here.
    followed = seed["models"]["federated"]["followed"]["ndcg@20"]
    assert seed["drift"]["quality"]["now"]["value"] == pytest.approx(followed)
    assert seed["epsilon_of_one_job"] <= 8.0 < seed["epsilon_of_two_jobs"]
    assert "count nothing" in capsys.readouterr().out


def test_following_is_worth_more_than_standing_still() -> None:
    measured = json.loads((BENCHMARKS / "results" / "adapting.json").read_text())["seeds"]
    for seed in measured:
        for name in ("federated", "local item-knn", "local item-graph"):
            ways = seed["models"][name]
            assert ways["followed"]["hit_rate@10"] > ways["as it was"]["hit_rate@10"], name


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("adapting").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err
