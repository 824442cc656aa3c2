"""The benchmark of cross-moments runs at toy size and says what it measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_bytes_time_memory_and_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))
    target = tmp_path / "figures.json"
    arguments = ["--slots", "150", "--items", "300", "--features", "3", "--json", str(target)]
    module = importlib.import_module("cross_moments")

    assert module.main(arguments) == 0

    found = json.loads(target.read_text())
    assert found["noised"]["upload_bytes"] == 150 * 36_928
    assert found["noised"]["download_bytes"] == 3 * 73_728
    assert found["noised"]["difference_std"] == pytest.approx(found["noised"]["noise_std"], rel=0.2)
    assert 0 < found["before_noise"]["max_error"] < 1e-4
    for silo in ("label", "feature"):
        assert found["noised"][silo]["peak_rss_bytes"] > 10_000_000
    assert "36,928 bytes per slot" in capsys.readouterr().out


def test_a_goal_that_is_missed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))
    module = importlib.import_module("cross_moments")
    monkeypatch.setattr(module, "GOAL_ERROR", 1e-9)
    target = str(tmp_path / "figures.json")
    assert module.main(["--slots", "20", "--items", "30", "--features", "1", "--json", target]) == 1
