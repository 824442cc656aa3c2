"""Parties of a vertical job are killed at each durable step of its legs; it ends as if none had been."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.messages import PostKind
from federation.steps import LEG_STEPS, Step
from tests.contracts.federation_directories import SILOS
from tests.support.vertical_federation import vertical_federation

KILLS = {(when, step.value) for step in (*LEG_STEPS, Step.CHARGED) for when in ("before", "after")}


def test_a_job_survives_kills_before_and_after_every_step_of_a_leg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = vertical_federation(tmp_path, monkeypatch)
    federation.kills = set(KILLS)
    state = federation.play(federation.until_ended)
    assert not federation.kills
    assert len(federation.killed) == len(KILLS)
    assert state.outcome == "completed"
    assert federation.concluded(SILOS[0])["moments"] == dict.fromkeys(SILOS[1:], True)
    for silo in SILOS:
        assert federation.concluded(silo)["slots"] == f"slots of {silo}"
        assert not list((federation.parties.parties[silo].directory / "outbox").glob(f"{federation.job}-*"))
    streams = [place for place in state.posts if place.kind is PostKind.STREAM]
    assert len(streams) == len(set(streams)) == 3 + 3 + 3 + 1 + 3 + 2
