"""The benchmark of exported networks runs, and its committed figures keep what the pages promise."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_networks_and_indices_are_exported_and_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = tmp_path / "figures.json"
    words = [
        "--users", "256", "--items", "120", "--rounds", "2", "--architectures", "gru",
        "--json", str(target),
    ]  # fmt: skip
    assert importlib.import_module("compression_networks").main(words) == 0
    records = json.loads(target.read_text())["records"]
    assert {record["way"] for record in records} >= {"float32", "int8", "index, int8"}
    for record in records:
        if record["way"] == "float32":
            assert record["overlap"] > 0.999
            assert record["after"] == pytest.approx(record["before"])
    assert "exported files" in capsys.readouterr().out


def test_bytes_keep_nine_of_ten_in_two_fifths_of_the_size() -> None:
    records = json.loads((BENCHMARKS / "results" / "compression_networks.json").read_text())["records"]
    for record in records:
        if record["way"] == "int8":
            assert record["share"] <= 0.4, record["model"]
            assert record["overlap"] >= 0.9, record["model"]
            assert record["overlap_made_up"] >= 0.9, record["model"]
