"""``docs/reference-exit-codes.md`` against the one enum of exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from privacy.errors import ExitCode

ROOT = Path(__file__).parents[2]


def test_the_table_and_the_enum_say_the_same() -> None:
    text = (ROOT / "docs" / "reference-exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([A-Z]+)` \| .+ \|$", text, re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(code.value, code.name) for code in ExitCode]
