"""A job that is paused, loses a worker and a state file, goes on, and is cancelled: its model is usable."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import psutil
import pytest

from federation import client
from federation.identity import Party
from federation.rounds import JobState, Phase
from federation.transport.base import Connection
from policies.plans.drafting import Draft, complete_plan
from policies.plans.price import plan_epsilon
from silo.finished import load_finished
from silo.site import Site
from tests.contracts.small_federation import (
    Node,
    SmallFederation,
    make_small_federation,
    nodes,
    submit,
    talk,
)
from tests.support.real_jobs import (
    card_of,
    check_charges,
    check_every_round_has_one_digest,
    check_one_checkpoint,
    wait_for,
    wait_for_end,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ROUNDS = 50


def test_pause_trouble_resume_cancel_and_another_job(tmp_path: Path) -> None:
    federation = make_small_federation(
        tmp_path,
        family="autoencoder",
        features=6,
        hidden=4,
        rounds=ROUNDS,
        bias_epsilon=0.0,
        target_epsilon=3.0,
    )
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        job = submit(federation)
        talk(federation, partial(pause, wait_for(federation, job, lambda state: len(state.opened) >= 2)))
        paused = wait_for(federation, job, lambda state: state.phase is Phase.PAUSED)
        kill_worker(running["shop-c"])
        damaged = restart_with_a_damaged_state(federation, running["shop-b"], job)
        talk(federation, partial(resume, paused))
        state = wait_for(federation, job, lambda state: len(state.opened) >= len(paused.opened) + 2)
        talk(federation, partial(cancel, job))
        state = wait_for_end(federation, job)

        counted = complete_plan(popularity_draft(federation))
        later = submit(federation, plan=counted)
        assert wait_for_end(federation, later).outcome == "completed"
        assert [node.end() for node in running.values()] == [0] * len(running)

    assert state.outcome == "cancelled"
    opened = len(state.opened)
    assert len(paused.opened) + 2 <= opened < ROUNDS
    check_every_round_has_one_digest(state)
    check_charges(federation, state)
    check_one_checkpoint(federation, job)
    for name in federation.names:
        card = card_of(federation, name, job)
        assert card["rounds"] == {"opened": opened, "planned": ROUNDS}
        assert card["note"] == f"after {opened} of {ROUNDS} rounds: cancelled"
        assert 0 < card["privacy"]["epsilon"] < plan_epsilon(federation.plan)
        of_job = load_finished(federation.directory(name), job[:8])
        assert (of_job.job, of_job.note) == (job, card["note"])
        assert (load_finished(federation.directory(name)).job, later) == (later, later)
        with Site(federation.directory(name)) as site:
            assert site.ledger.status("customers").outstanding == ()
    repairs = json.loads((federation.directory("shop-b") / "jobs" / job / "repairs.json").read_bytes())
    assert damaged in repairs[0]
    assert not (federation.directory("shop-a") / "jobs" / job / "repairs.json").exists()


def popularity_draft(federation: SmallFederation) -> Draft:
    return Draft(
        silos=federation.names,
        catalogue_sha256=federation.catalogue.sha256,
        catalogue_items=len(federation.catalogue),
        family="popularity",
        target_epsilon=1.0,
        target_delta=1e-6,
        max_users_per_silo=64,
        max_silos_per_user=1,
        max_interactions_per_user=20,
    )


def kill_worker(node: Node) -> None:
    """The largest child of an agent is its worker; the other one tracks resources."""
    assert node.process is not None
    children = psutil.Process(node.process.pid).children()
    max(children, key=lambda child: child.memory_info().rss).kill()


def restart_with_a_damaged_state(federation: SmallFederation, node: Node, job: str) -> str:
    """Stop an agent, alter one byte of the state it keeps, start it again; returns the file's name."""
    assert node.end(signal.SIGTERM) == 0
    path = federation.directory(node.name) / "jobs" / job / "state.safetensors"
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    node.start()
    return path.name


async def pause(state: JobState, connection: Connection, party: Party) -> None:
    await client.pause(connection, party, state)


async def resume(state: JobState, connection: Connection, party: Party) -> None:
    await client.resume(connection, party, state)


async def cancel(job: str, connection: Connection, party: Party) -> None:
    await client.cancel(connection, party, job)
