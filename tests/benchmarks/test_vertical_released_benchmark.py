"""The benchmark of released numbers says what it measured, and how to name the data."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_rows_are_compared_with_alone_seed_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("vertical_released")
    runs = [
        {"alone": {"ndcg@20": base}, "8 released numbers, epsilon 8": {"ndcg@20": base * lift}}
        for base, lift in ((0.4, 1.1), (0.5, 1.2))
    ]
    alone, released = module.table_of(runs)
    assert alone[0] == "alone"
    assert np.allclose(alone[1:], (0.45, 0.0, 0.0))
    assert np.allclose(released[1:], (0.52, 15.0, 5.0))


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("vertical_released").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err
