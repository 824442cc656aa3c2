"""The benchmark of what adapters do to a ranking: without data it says how to name it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_without_data_it_says_how_to_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("ARCHIPEL_DATA", raising=False)
    assert importlib.import_module("adapter_ranking").main([]) == 2
    assert "ARCHIPEL_DATA" in capsys.readouterr().err
