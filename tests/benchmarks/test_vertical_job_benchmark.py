"""The benchmark of a whole vertical job runs at toy size, through real processes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.timeout(300)
def test_parts_processes_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("vertical_job")
    target = tmp_path / "figures.json"
    assert benchmark.main(["--people", "80", "--items", "40", "--json", str(target)]) == 0
    measured = json.loads(target.read_text())["measured"]
    assert 2 * 80 < measured["slots"] < 2 * (80 + 200)  # both lists, and the reserve of a noised count
    assert 36_928 < measured["bytes_per_slot"] < 40_000
    assert all(seconds > 0 for seconds in measured["seconds"].values())
    assert "agent's worker shop" in measured["roles"]
