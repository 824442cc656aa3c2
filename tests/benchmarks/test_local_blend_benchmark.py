"""The benchmark of local models and their blend runs on a small real set and says what it measured."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.data
def test_every_model_and_the_blend_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = os.environ.get("ARCHIPEL_DATA")
    if not root or not (Path(root) / "movielens-100k").is_dir():
        pytest.skip("ARCHIPEL_DATA names no folder with movielens-100k")
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = tmp_path / "figures.json"
    module = importlib.import_module("local_blend")

    assert module.main(["--set", "movielens-100k", "--seeds", "1", "--json", str(target)]) == 0

    found = json.loads(target.read_text())
    ((*silos,),) = found["federations"]
    assert [sum(silo["weights"].values()) for silo in silos] == pytest.approx([1.0] * 4)
    assert set(silos[0]["ndcg@20"]) == {"popularity", "item-knn", "item-graph", "federated", "blend"}
    # What the design measured on this set: neighbours .12, EASE .14; popularity .076.
    (alone,) = found["alone"]
    assert alone["item-knn"]["hit_rate@10"] == pytest.approx(0.12, abs=0.015)
    assert alone["item-graph"]["hit_rate@10"] == pytest.approx(0.14, abs=0.015)
    assert "blend against the best" in capsys.readouterr().out


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("local_blend").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err
