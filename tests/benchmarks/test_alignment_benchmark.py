"""The benchmark of alignment runs at toy size and says what it measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_it_runs_and_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = importlib.import_module("alignment")
    target = tmp_path / "alignment.json"
    assert benchmark.main(["--silos", "2", "3", "--people", "60", "--json", str(target)]) == 0
    two, three = json.loads(target.read_text())["runs"]
    assert (two["upload_bytes_a_silo"], three["upload_bytes_a_silo"]) == (60 * 33 * 2 + 32, 60 * 33 * 3 + 32)
    assert min(two["parts"].values()) > 0
