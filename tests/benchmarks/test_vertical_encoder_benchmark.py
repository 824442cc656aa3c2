"""The benchmark of the private encoder runs on a small real set and says what it measured."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.data
def test_numbers_beside_cross_moments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = os.environ.get("ARCHIPEL_DATA")
    if not root or not (Path(root) / "movielens-latest-small").is_dir():
        pytest.skip("ARCHIPEL_DATA names no folder with movielens-latest-small")
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = tmp_path / "figures.json"
    module = importlib.import_module("vertical_encoder")
    arguments = ["--set", "movielens-latest-small", "--epsilon", "8", "--steps", "4", "--epochs", "1"]

    assert module.main([*arguments, "--json", str(target)]) == 0

    found = json.loads(target.read_text())
    (run,) = found["runs"]
    assert run["epsilon"]["8"]["release_noise_multiplier"] == pytest.approx(0.77, abs=0.01)
    table = {name: (value, lift) for name, value, lift in found["table"]}
    assert table["silo alone"][1] == 0.0
    assert table["ridge on numbers, epsilon 8"][0] == run["epsilon"]["8"]["ridge_on_numbers"]["ndcg@20"]
    assert "lift over alone" in capsys.readouterr().out


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("vertical_encoder").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err
