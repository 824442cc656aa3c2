"""``silo status`` tells this silo's own people what nobody else hears."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from silo import status
from silo.progress import PROGRESS_FILE
from silo.site import Site
from silo.status import describe, gather
from tests.contracts.small_federation import make_small_federation

JOB = "ab" * 16


def noted(**changes: Any) -> dict[str, Any]:
    note = {
        "job": JOB,
        "phase": "collecting",
        "round": 3,
        "num_rounds": 9,
        "absent": False,
        "outcome": None,
        "reason": "",
        "problem": None,
        "finished": False,
    }
    return note | changes


def said(tmp_path: Path, note: dict[str, Any], losses: list[float]) -> str:
    directory = make_small_federation(tmp_path, silos=("shop-a", "shop-b")).directory("shop-a")
    job = directory / "jobs" / JOB
    with Site(directory) as site:
        site.remember_repair(JOB, "round 2: opened another sum than all others; repaired")
    (job / "state.json").write_text(json.dumps(note))
    lines = [json.dumps({"round": number, "local_loss": loss}) for number, loss in enumerate(losses, 1)]
    (job / PROGRESS_FILE).write_text("\n".join(lines))
    found = asyncio.run(gather(directory))
    assert found["jobs"][0]["progress"] == [json.loads(line) for line in lines]
    return "\n".join(line for line in describe(found) if isinstance(line, str))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PATIENCE_SECONDS", 0.05)


def test_losses_repairs_and_absence_are_shown(tmp_path: Path) -> None:
    text = said(tmp_path, noted(absent=True), [3.25, 3.0, 2.5])
    assert "collecting, round 3 of 9" in text
    assert "after round 1: 3.2500, after round 3: 2.5000 (stays here)" in text
    assert "opened another sum than all others; repaired" in text
    assert "went on without this silo" in text


def test_a_note_of_an_older_version_is_read(tmp_path: Path) -> None:
    note = noted(outcome="completed")
    del note["absent"]
    text = said(tmp_path, note, [3.25])
    assert "completed" in text
    assert "after round 1: 3.2500 (stays here)" in text
    assert "went on without" not in text
