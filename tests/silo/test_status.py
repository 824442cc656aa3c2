"""``silo status`` tells this silo's own people what nobody else hears."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from silo import status
from silo.progress import PROGRESS_FILE
from silo.site import Site
from silo.status import describe, gather
from silo.vertical.serving.consent import ConsentBook
from tests.contracts.small_federation import make_small_federation
from tests.support.serving_scene import FEATURE, LABEL, make_serving_scene

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


def test_whom_a_silo_answers_about_consenting_people_and_how_often(tmp_path: Path) -> None:
    scene = make_serving_scene(tmp_path)
    with scene.site(FEATURE) as site, ConsentBook(site.directory / "consent.db") as book:
        for outcome, days in (("answered", 0), ("answered", 3), ("unknown", 3), ("answered", 40)):
            book.count(LABEL, outcome, site.now() - timedelta(days=days))
    found = asyncio.run(gather(scene.directory(FEATURE)))
    assert found["serving"] == {
        "mode": "consented_session",
        "answers": {LABEL: ["product-recommendation"]},
        "questions": {"answered": 2, "unknown": 1},
    }
    text = "\n".join(line for line in describe(found) if isinstance(line, str))
    assert f"answers {LABEL} about people who bring it their token, for product-recommendation" in text
    assert "2 answered, 1 unknown" in text
    assert asyncio.run(gather(scene.directory(LABEL)))["serving"]["questions"] == {}
