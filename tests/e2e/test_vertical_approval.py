"""People approve an alignment with the real command, beside real processes: one yes, one no."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.small_federation import SmallFederation, nodes, state_on_disk, submit, wait_until
from tests.support.partners import NAMES, make_partners

pytestmark = pytest.mark.e2e

SECONDS = 300
ASKING = NAMES[1:]


def align(federation: SmallFederation, silo: str, *words: str) -> dict[str, Any]:
    program = [str(Path(sys.executable).with_name("archipel")), "align", *words]
    place = ["--dir", str(federation.directory(silo)), "--json", "-"]
    done = subprocess.run([*program, *place], capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def waits(federation: SmallFederation, job: str, silo: str) -> bool:
    note = federation.directory(silo) / "jobs" / job / "state.json"
    return note.exists() and json.loads(note.read_text())["phase"] == "approving"


def is_finished(federation: SmallFederation, job: str) -> bool:
    notes = [federation.directory(name) / "jobs" / job / "state.json" for name in NAMES]
    return all(note.exists() and json.loads(note.read_text()).get("finished") for note in notes)


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(("last_word", "outcome"), [("approve", "completed"), ("refuse", "denied")])
def test_the_last_word_of_two_silos_decides(tmp_path: Path, last_word: str, outcome: str) -> None:
    federation = make_partners(tmp_path, asking=ASKING)
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        job = submit(federation)
        wait_until(lambda: all(waits(federation, job, silo) for silo in ASKING), seconds=SECONDS / 3)
        assert align(federation, ASKING[0], "approve", job[:8])["decision"] == "approved"
        (waiting,) = align(federation, ASKING[1], "list")["alignments"]
        assert waiting["approval"] == "waits"
        align(federation, ASKING[1], last_word, job[:8])
        wait_until(lambda: is_finished(federation, job), seconds=SECONDS / 2)
        assert [node.end() for node in running.values()] == [0] * len(running)
    state = state_on_disk(federation, job)
    assert state is not None
    assert state.outcome == outcome, state.reason
    if outcome == "denied":
        assert state.reason == f"{ASKING[1]} does not approve the alignment"
