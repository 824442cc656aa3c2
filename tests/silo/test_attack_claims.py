"""Guesses against a claim: what they could not have shown, however good, is said beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policies.files import save_yaml
from silo.audit.attack.claims import hold
from silo.audit.attack.recording import MANIFEST, Manifest, Place, Recording
from silo.audit.attack.results import Attacked, Trial
from tests.contracts.federation_directories import popularity_plan


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """Plan and manifest of a job; a claim needs no more."""
    plan = popularity_plan(b"catalogue")
    save_yaml(tmp_path / "plan.yaml", plan)
    place = Place(round=1, attempt=1)
    manifest = Manifest(
        job="ab", coordinator="hub", colluders=plan.silos[:1], one_more=None, opened=(place,),
        streams=(place,), seed="00",
    )  # fmt: skip
    (tmp_path / MANIFEST).write_text(manifest.model_dump_json())
    return Recording(tmp_path)


def told(recording: Recording, num: int, right: float) -> tuple[Trial, list[str]]:
    rng = np.random.default_rng(3)
    is_in = rng.random(num) < 0.5
    knows = rng.random(num) < right
    scores = np.where(is_in == knows, 0.9, 0.1)
    attacked = Attacked("canaries")
    hold(
        attacked, recording, "somebody", scores=scores, is_in=is_in, threshold=0.5,
        code="canaries_told_apart", who="canaries",
    )  # fmt: skip
    return attacked.trials[0], [item.code for item in attacked.findings]


@pytest.mark.parametrize("right", [0.5, 1.0])
def test_canaries_too_few_say_so_whatever_they_came_to(recording: Recording, right: float) -> None:
    trial, found = told(recording, 256, right)
    assert "too few to refute this claim: all right would show 3." in trial.came_to
    assert trial.stands
    assert found == []


def test_enough_of_them_refute_it_and_do_not_say_so(recording: Recording) -> None:
    trial, found = told(recording, 8192, 1.0)
    assert "too few" not in trial.came_to
    assert not trial.stands
    assert found == ["canaries_told_apart"]
    assert "too few" not in told(recording, 8192, 0.5)[0].came_to
