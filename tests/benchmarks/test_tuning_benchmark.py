"""The benchmark of three ways of choosing runs on a small real set, and its committed figures add up."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.data
def test_every_way_is_measured_and_charged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    root = os.environ.get("ARCHIPEL_DATA")
    if not root or not (Path(root) / "movielens-100k").is_dir():
        pytest.skip("ARCHIPEL_DATA names no folder with movielens-100k")
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = tmp_path / "figures.json"
    words = ["--seeds", "1", "--trials", "2", "--people", "200", "--rounds", "5", "--json", str(target)]
    assert importlib.import_module("tuning").main(words) == 0
    (seed,) = json.loads(target.read_text())["seeds"]
    assert seed["public"]["epsilon_proposed"] <= 8.0
    assert len(seed["post_processing"]) == 4
    for record in seed["local_private"]:
        assert record["counted_after"] > record["counted_before"] > 8.0
    assert "chosen in private" in capsys.readouterr().out


def test_a_dearer_choice_is_a_better_one_and_none_is_free() -> None:
    measured = json.loads((BENCHMARKS / "results" / "tuning.json").read_text())["seeds"]
    for seed in measured:
        by_price: dict[float, list[float]] = {}
        for record in seed["local_private"]:
            assert record["counted_after"] > record["counted_before"]
            by_price.setdefault(record["epsilon"], []).append(record["loss"])
        mean = {price: sum(losses) / len(losses) for price, losses in by_price.items()}
        assert mean[max(mean)] < mean[min(mean)]


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("tuning").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err
