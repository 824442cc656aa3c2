"""The benchmark of cold items says how to be run, and its committed figures are far from chance."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def measured() -> dict[str, list[dict[str, dict[str, float]]]]:
    """hit_rate@10 by architecture, seed, scene and promise."""
    found = json.loads((BENCHMARKS / "results" / "cold_items.json").read_text())
    return dict(found["architectures"])


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("cold_items").main(["--json", "-"]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err


def test_texts_rank_items_that_nobody_touched() -> None:
    """By chance it is 0.04; a federation over texts that does not reach 0.10 would not be worth its noise."""
    for architecture, seeds in measured().items():
        for seed in seeds:
            for name in ("4 silos, one list", "4 silos, own lists"):
                assert seed[name]["epsilon 8"] >= 0.10, (architecture, name)


def test_silos_that_sell_different_things_learn_more_together_than_alone() -> None:
    together, alone = "2 silos, own lists", "alone, own lists"
    for seed in measured()["bottleneck"]:
        for promise in ("epsilon 4", "epsilon 8"):
            assert seed[together][promise] > seed[alone][promise] > seed[together]["untrained"]
