"""A silo that dies in the middle of a round: the others go on, it comes back, and ends with their model."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from federation import client
from federation.identity import Party
from federation.messages import Absence, PostKind
from federation.rounds import JobState, Phase
from federation.transport.base import Connection
from tests.contracts.small_federation import make_small_federation, nodes, submit, talk
from tests.support.real_jobs import (
    check_charges,
    check_every_round_has_one_digest,
    check_one_checkpoint,
    wait_for,
    wait_for_end,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SILOS = ("shop-a", "shop-b", "shop-c", "shop-d")
LOST = "shop-c"


def test_the_others_go_on_and_the_lost_silo_catches_up(tmp_path: Path) -> None:
    federation = make_small_federation(
        tmp_path,
        silos=SILOS,
        family="autoencoder",
        features=6,
        hidden=4,
        rounds=8,
        bias_epsilon=0.0,
        target_epsilon=3.0,
        min_silos=3,
        round_minutes=0.1,
        max_burned_rounds=6,
        colluding_silos=1,
    )
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        job = submit(federation)
        wait_for(federation, job, lambda state: state.round >= 2)
        running[LOST].end(signal.SIGKILL)
        wait_for(federation, job, lambda state: LOST in state.absent)
        talk(federation, partial(pause, wait_for(federation, job, lambda _: True)))
        paused = wait_for(federation, job, lambda state: state.phase is Phase.PAUSED)
        assert paused.contributors_of(len(paused.opened), paused.opened[-1]) == ("shop-a", "shop-b", "shop-d")

        running[LOST].start()
        back = wait_for(federation, job, lambda state: LOST not in state.absent)
        talk(federation, partial(resume, back))
        state = wait_for_end(federation, job)
        assert [node.end() for node in running.values()] == [0] * len(running)

    assert (state.outcome, state.burned > 0) == ("completed", True)
    absences = [
        post.content(Absence).silos for place, post in state.posts.items() if place.kind is PostKind.ABSENCE
    ]
    assert (LOST,) in absences
    returned = [place for place in state.posts if place.kind is PostKind.RETURN and place.sender == LOST]
    assert returned
    assert LOST in state.contributors_of(state.num_rounds, state.opened[-1])
    streams = {place.round for place in state.posts if (place.kind, place.sender) == (PostKind.STREAM, LOST)}
    assert state.num_rounds in streams
    check_every_round_has_one_digest(state)
    check_one_checkpoint(federation, job)
    check_charges(federation, state)
    rebuilt = (federation.directory(LOST) / "logs" / "agent.log").read_text()
    assert "duty=return" in rebuilt


async def pause(state: JobState, connection: Connection, party: Party) -> None:
    await client.pause(connection, party, state)


async def resume(state: JobState, connection: Connection, party: Party) -> None:
    await client.resume(connection, party, state)
