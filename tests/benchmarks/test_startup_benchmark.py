"""The benchmark of the start: import profiles are read right, and nothing heavy is imported."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

PROFILE = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   rich.table
import time:        50 |        150 | rich
not a line of the profile
import time:        30 |         30 | typer
""".splitlines()


@pytest.fixture
def startup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("startup")


def test_profile_is_read(startup: ModuleType) -> None:
    found = startup.parse(PROFILE)
    assert [(one.module, one.own, one.cumulative) for one in found] == [
        ("rich.table", 100, 100),
        ("rich", 50, 150),
        ("typer", 30, 30),
    ]
    assert startup.by_package(found) == {"rich": 150, "typer": 30}


def test_each_module_counts_with_its_least_time(startup: ModuleType) -> None:
    slow = [startup.Imported("typer", 90, 200)]
    fast = [startup.Imported("typer", 30, 250)]
    assert startup.least([slow, fast]) == [startup.Imported("typer", 30, 200)]


def test_help_imports_nothing_heavy(startup: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    startup.main(["--repeats", "1", "--json", str(target)])
    found = json.loads(target.read_text())
    assert found["heavy_imports"] == []
    assert found["packages_microseconds"]["typer"] > 0
    assert found["ratio_to_bare_interpreter"]["wall"] > 0
