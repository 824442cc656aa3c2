"""The benchmark of the secure sum runs at toy size and says what it measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FRAME_AND_LENGTH_BYTES = 32972 + 4
SMALL = ["--silos", "2", "3", "--values", "3000", "--growth", "2", "4", "--growth-values", "5000"]


def test_bytes_time_memory_and_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = tmp_path / "figures.json"

    assert importlib.import_module("secure_sum").main([*SMALL, "--repeats", "1", "--json", str(target)]) == 0

    found = json.loads(target.read_text())
    assert found["max_error"] == 0
    assert [(row["silos"], row["frames"], row["upload_bytes"]) for row in found["cost"]] == [
        (2, 1, FRAME_AND_LENGTH_BYTES),
        (3, 1, FRAME_AND_LENGTH_BYTES),
    ]
    for row in found["cost"]:
        assert row["upload_ratio_to_float32"] == pytest.approx(FRAME_AND_LENGTH_BYTES / 12000)
        for step in ("protect", "sum", "open"):
            ratio = row["cpu_seconds"][step] / row["plain_cpu_seconds"][step]
            assert row["cpu_ratio_to_plain"][step] == pytest.approx(ratio)
    assert set(found["memory"]["peak_rss_bytes"]) == {"2", "4"}
    assert all(peak > 10_000_000 for peak in found["memory"]["peak_rss_bytes"].values())
    assert found["command"].startswith("python benchmarks/secure_sum.py --silos 2 3 --values 3000")
    assert "largest error of an integer sum: 0" in capsys.readouterr().out


def test_cost_of_a_silo_is_its_own_work_and_its_part_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    row = {"silos": 4, "values": 200_000, "cpu_seconds": {"protect": 0.02, "open": 0.01, "sum": 0.08}}
    assert importlib.import_module("secure_sum").milliseconds_a_silo(row) == pytest.approx(25.0)


def test_an_error_in_the_sum_would_be_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("secure_sum")
    layout = module.Layout.with_values_per_slot(2, 2, 100)
    levels = module.random_levels(layout, 2)
    honest = module.Roster.open
    monkeypatch.setattr(module.Roster, "open", lambda *args: honest(*args) + 1)

    assert module.secure_once(levels, layout, tmp_path)["max_error"] == 1
