"""The table of log fields against what the one way out of a silo declares."""

from __future__ import annotations

import re
from pathlib import Path

from silo.declarations import LOG_FIELDS

ROOT = Path(__file__).parents[2]


def test_the_table_names_every_declared_field_and_no_other() -> None:
    page = (ROOT / "docs" / "reference-files.md").read_text(encoding="utf-8")
    section = page.split("## Log fields")[1]
    first_cells = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} == LOG_FIELDS
