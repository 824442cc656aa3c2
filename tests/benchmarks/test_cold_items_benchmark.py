"""The benchmark of cold items says how to be run, and its committed figures are far from chance."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("cold_items").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err


def test_texts_rank_items_that_nobody_touched() -> None:
    """By chance it is 0.04; a federation over texts that does not reach 0.10 would not be worth its noise."""
    measured = json.loads((BENCHMARKS / "results" / "cold_items.json").read_text())["seeds"]
    for seed in measured:
        for name in ("one list", "own lists"):
            assert seed[name]["epsilon 8"] >= 0.10, name
