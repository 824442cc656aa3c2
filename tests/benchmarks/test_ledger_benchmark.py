"""The benchmark of the ledger: it fills what it says, times both ledgers, and finds nothing wrong."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("ledger")


def test_a_small_run_has_every_figure(ledger: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    ledger.main(["--entries", "300", "--jobs", "2", "--json", str(target), "--dir", str(tmp_path)])
    found = json.loads(target.read_text())
    assert (found["short_entries"], found["entries"]) == (91, 291)
    assert set(found["append"]) == {"reserve", "commit", "release"}
    assert all(row["ratio"] > 0 for both in found["append"].values() for row in both.values())
    assert [row["findings"] for row in found["audit"]] == [0, 0, 0]
    assert [row["entries"] for row in found["audit"]] == [1, 21, 291]
