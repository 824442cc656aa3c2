"""The benchmark of a DP step runs at toy size and says which mode is picked and whether goals are met."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def dp_step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("dp_step")
    monkeypatch.setattr(module, "NUM_ITEMS", 60)
    monkeypatch.setattr(module, "OWN_ITEMS", 60)
    # The number of threads is the process's, and other tests run in it.
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    return module


def test_ratio_and_picked_mode_of_each_shape(
    dp_step: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    asked = [
        "--shapes",
        "wide-64",
        "sequence",
        "language",
        "--users",
        "5",
        "--repeats",
        "2",
        "--json",
        str(target),
    ]
    code = dp_step.main(asked)

    found = json.loads(target.read_text())
    rows = [(row["shape"][:11], row["users"], row["mode"], row["is_picked"]) for row in found["rows"]]
    assert rows == [
        ("autoencoder", 5, "hooks", False),
        ("autoencoder", 5, "ghost", True),
        ("attention 5", 5, "hooks", False),
        ("attention 5", 5, "ghost", True),
        ("language tr", 5, "hooks", False),
        ("language tr", 5, "ghost", True),
    ]
    for row in found["rows"]:
        assert row["ratio"] > 0
        assert row["is_met"] is (row["ratio"] <= row["goal"])
    assert code == (0 if all(row["is_met"] for row in found["rows"] if row["is_picked"]) else 1)
    assert found["command"].startswith("python benchmarks/dp_step.py --shapes wide-64 sequence language")
    assert "ratio" in capsys.readouterr().out


def test_a_missed_goal_is_reported_as_missed(dp_step: ModuleType) -> None:
    row = {
        "shape": "autoencoder",
        "users": 256,
        "mode": "ghost",
        "is_picked": True,
        "plain_cpu_seconds": 0.1,
        "private_cpu_seconds": 0.3,
        "ratio": 3.0,
        "goal": 2.5,
        "is_met": False,
    }
    page = importlib.import_module("reporting").Markdown()
    dp_step.show({"rows": [row, row | {"mode": "hooks", "is_picked": False}]}, page)
    assert "| ghost (picked) | 100.0 | 300.0 | 3.00 | <= 2.5 | **no** |" in page.text
    assert "| hooks | 100.0 | 300.0 | 3.00 |  |  |" in page.text
