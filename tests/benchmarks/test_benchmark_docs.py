"""The pages of benchmarks and results show what is committed."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "reference-results.md"

PLACE = re.compile(r"<!-- figures: (\w+) -->")


@pytest.fixture
def write_docs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("write_docs")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_results(write_docs: ModuleType, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    stale = "figures are stale: run python benchmarks/write_docs.py"
    assert write_docs.filled(text) == text, stale


def test_every_script_has_its_place_on_a_page() -> None:
    named = [name for page in PAGES for name in PLACE.findall(page.read_text(encoding="utf-8"))]
    reporting = [
        script.stem
        for script in (ROOT / "benchmarks").glob("*.py")
        if "def main(" in (text := script.read_text(encoding="utf-8")) and "add_json_option" in text
    ]
    assert len(named) == len(set(named))
    assert set(named) >= set(reporting)


def test_a_place_is_filled_with_table_command_and_machine(
    write_docs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(write_docs, "RESULTS", tmp_path)
    place = "before\n<!-- figures: startup -->\nold\n<!-- end -->\nafter\n"
    assert "No figures yet" in write_docs.filled(place)

    reporting = importlib.import_module("reporting")
    result = reporting.header("startup", "python benchmarks/startup.py") | {
        "wall_seconds": 0.2,
        "wall_seconds_least": 0.1,
        "cpu_seconds": 0.15,
        "ratio_to_bare_interpreter": {"wall": 4.0, "cpu": 5.0},
        "modules": 3,
        "heavy_imports": [],
        "packages_microseconds": {"typer": 30000},
        "slowest_imports": [],
    }
    (tmp_path / "startup.json").write_text(json.dumps(result))
    filled = write_docs.filled(place)

    assert filled.startswith("before\n<!-- figures: startup -->\n\nMade on ")
    assert filled.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in filled
    assert "`python benchmarks/startup.py` on" in filled
    assert "| package | ms |\n| --- | ---: |\n| typer | 30.0 |" in filled
    assert write_docs.filled(filled) == filled
