"""Parties that keep to the protocol of legs and send something else in them: the job ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from federation.legs.legs import Leg, LegPurpose
from federation.legs.matching import Found, TooFew
from federation.legs.spines import find_spine
from federation.rounds import JobState
from policies.plans.vertical.terms import AlignmentTerms
from silo.jobs.context import JobContext
from silo.vertical.alignment.content import AlignmentContent
from silo.vertical.artefacts import BASIS_FILE, MODEL_FILE
from silo.vertical.contents import CONTENTS
from silo.vertical.moments.content import MomentsContent
from tests.contracts.federation_directories import SILOS
from tests.silo.test_aligned_moments import federation_of
from tests.support.vertical_federation import VerticalFederation


class OtherBytes:
    """Does what the content does, and then writes others over what one silo sends in legs of one purpose."""

    def __init__(self, content: AlignmentContent | MomentsContent, by: str, purpose: LegPurpose) -> None:
        self._content, self._by, self._purpose = content, by, purpose

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:
        await self._content.write(context, leg, target)
        if (context.me, leg.purpose) == (self._by, self._purpose):
            await asyncio.to_thread(_write_over, target)

    async def read(self, context: JobContext, leg: Leg, received: Mapping[str, Path]) -> None:
        await self._content.read(context, leg, received)

    async def conclude(self, context: JobContext) -> None:
        await self._content.conclude(context)


def _write_over(target: Path) -> None:
    target.write_bytes(os.urandom(target.stat().st_size))


def ended(federation: VerticalFederation) -> JobState:
    state: JobState = federation.play(federation.until_ended)
    directories = [federation.parties.parties[silo].directory for silo in SILOS]
    assert not [path for directory in directories for path in directory.rglob(MODEL_FILE)]
    assert not [path for directory in directories for path in directory.rglob(BASIS_FILE)]
    return state


@pytest.mark.parametrize(
    ("by", "purpose", "seen_by"),
    [
        (SILOS[1], LegPurpose.HOP, SILOS[2]),
        (SILOS[0], LegPurpose.BLOCK, None),
        (SILOS[2], LegPurpose.MOMENTS, SILOS[0]),
    ],
)
def test_noise_where_points_or_ciphertexts_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, purpose: LegPurpose, seen_by: str | None
) -> None:
    federation = federation_of(tmp_path, monkeypatch)
    monkeypatch.setitem(CONTENTS, purpose, OtherBytes(CONTENTS[purpose], by, purpose))  # type: ignore[arg-type]
    state = ended(federation)
    assert state.outcome == "cancelled"
    seers = SILOS[1:] if seen_by is None else (seen_by,)
    assert state.reason in [f"cancelled by {silo}" for silo in seers]


def test_points_that_are_none_end_the_job_at_the_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_of(tmp_path, monkeypatch)
    content = OtherBytes(AlignmentContent(), SILOS[0], LegPurpose.BLINDED)
    monkeypatch.setitem(CONTENTS, LegPurpose.BLINDED, content)
    state = ended(federation)
    assert (state.outcome, "could not be matched" in state.reason) == ("failed", True)


def crowded(lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]) -> Found | TooFew:
    """A coordinator that puts all of one silo's people into one slot: their sum would tell of few."""
    found = find_spine(lists, terms, slots)
    path = slots[SILOS[1]]
    path.write_bytes(np.zeros(len(path.read_bytes()) // 8, dtype="<u8").tobytes())
    return found


def beyond(lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]) -> Found | TooFew:
    """A coordinator that leaves a silo's people without a slot, though all have one."""
    found = find_spine(lists, terms, slots)
    path = slots[SILOS[2]]
    path.write_bytes(np.full(len(path.read_bytes()) // 8, 2**64 - 1, dtype="<u8").tobytes())
    return found


@pytest.mark.parametrize(("match", "seen_by"), [(crowded, SILOS[1]), (beyond, SILOS[2])])
def test_slots_that_are_none_of_the_spine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, match: object, seen_by: str
) -> None:
    federation = federation_of(tmp_path, monkeypatch)
    federation.match = match  # type: ignore[assignment]
    state = ended(federation)
    assert (state.outcome, state.reason) == ("cancelled", f"cancelled by {seen_by}")


def test_below_the_least_intersection_nobody_learns_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_of(tmp_path, monkeypatch, min_intersection=95, alignment_epsilon=5.0)
    state = ended(federation)
    assert (state.outcome, state.spine_slots) == ("failed", None)
    assert "too few people in common" in state.reason
    for silo in SILOS:
        assert not list(federation.parties.parties[silo].directory.rglob("*slots*"))
    assert not list(federation.parties.hub.directory.rglob("*slots*"))
