"""Two comparisons that protect the job's key and a silo's state: removing either must not go unnoticed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from typing_extensions import override

from federation.messages import PostKind
from federation.rounds import JobState, Phase, advance
from privacy.agreement import DisagreementError
from silo.jobs import aggregates, recover
from silo.jobs import open as opening
from silo.tasks import OpenTask
from tests.faults.test_review_training import ME, CountingWorker, InlineWorker, Stage


class OtherIntegers(InlineWorker):
    """Opens every sum to zeros, which nobody signed for."""

    @override
    async def open(self, task: OpenTask) -> bytes:
        np.save(task.target, np.zeros(task.layout.values, dtype=np.int64))
        return bytes(32)


def missed_the_first_round(stage: Stage) -> JobState:
    """The second round has begun, and this silo is absent since the first."""
    board, lost = stage.board, (ME,)
    state = board.until(stage.state, Phase.EXCHANGING)
    while ME not in state.absent:
        due = board.due(state, without=lost)
        state = advance(state, due[0] if due else board.absence(state, ME))
    return board.until(state, Phase.EXCHANGING, round=2, without=lost)


def test_a_sum_that_others_received_otherwise_is_never_decrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where this silo's coin says not to recompute the sum."""
    monkeypatch.setattr(opening, "_is_checked", lambda _context: False)
    worker = CountingWorker()
    stage = Stage(tmp_path, worker=worker)
    state = stage.board.until(stage.state, Phase.OPENING)
    stage.site.outbox.path(state.job, "sum", 1, 1).write_bytes(b"a sum")
    said = asyncio.run(opening.open_sum(stage.context(state)))
    assert (said.kind, worker.opened) == (PostKind.FAILED, 0)


def test_a_replayed_sum_that_opens_otherwise_than_signed_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all say that they received these very bytes."""
    monkeypatch.setattr(aggregates, "_compare_received", lambda *_: None)
    stage = Stage(tmp_path, worker=OtherIntegers())
    state = missed_the_first_round(stage)
    with pytest.raises(DisagreementError):
        asyncio.run(recover.come_back(stage.context(state)))
    assert not list((stage.site.directory / "jobs" / state.job).glob("aggregate-*"))
