"""kill -9 of everybody, before and after every durable step that the state machine names."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from federation.messages import PostKind
from federation.steps import (
    COORDINATOR_STEPS,
    LEADER_STEPS,
    LEG_STEPS,
    SILO_STEPS,
    TRAINING_STEPS,
    TROUBLE_STEPS,
    Step,
)
from federation.trail import REFUSED
from privacy.ledger.chain import read_entries
from tests.contracts.small_federation import (
    SmallFederation,
    make_small_federation,
    nodes,
    posts_on_disk,
    state_on_disk,
    submit,
)
from tests.support.supervisor import (
    Kill,
    Supervisor,
    around,
    charges,
    outbox_posts,
    outbox_rows,
    sha256_of,
)

pytestmark = pytest.mark.e2e

SECONDS = 400


def shared_out(federation: SmallFederation) -> dict[str, list[Kill]]:
    """Every step of a silo to one of the silos, those of a leader to the leader."""
    kills: dict[str, list[Kill]] = {name: [] for name in federation.names}
    turn = iter(federation.names * len(SILO_STEPS))
    for step in SILO_STEPS:
        kills[federation.leader if step in LEADER_STEPS else next(turn)] += around([step])
    return kills


def is_finished(federation: SmallFederation, job: str) -> bool:
    notes = [federation.directory(name) / "jobs" / job / "state.json" for name in federation.names]
    return all(note.exists() and json.loads(note.read_text())["finished"] for note in notes)


def refusals(federation: SmallFederation) -> list[str]:
    entries = read_entries(federation.parties.hub.directory / "trail.db")
    return [entry.payload["code"] for entry in entries if entry.kind == REFUSED]


@pytest.fixture
def federation(tmp_path: Path) -> SmallFederation:
    return make_small_federation(tmp_path)


@pytest.mark.timeout(SECONDS + 60)
def test_a_job_survives_every_kill(federation: SmallFederation) -> None:
    hub = federation.parties.hub.directory
    streams: dict[str, str] = {}
    secrets: list[bytes] = []

    def look_at_spool() -> None:
        for path in hub.glob("spool/*/stream-*"):
            streams[path.name.rpartition("1-1-")[2]] = sha256_of(path)

    def look_at_secrets() -> None:
        for (secret,) in outbox_rows(federation.directory(federation.leader), "SELECT value FROM secrets"):
            secrets.append(secret)

    kills = {"hub": around(COORDINATOR_STEPS)} | shared_out(federation)
    kills["hub"] = [
        Kill(kill.when, kill.step, look_at_spool) if kill.step is Step.END_POSTED else kill
        for kill in kills["hub"]
    ]
    kills[federation.leader] = [
        Kill(kill.when, kill.step, look_at_secrets) if kill.step is Step.KEYS_STORED else kill
        for kill in kills[federation.leader]
    ]
    asked = {name: [kill.failpoint for kill in mine] for name, mine in kills.items()}
    with nodes(federation) as running, ThreadPoolExecutor(1) as aside:
        supervisor = Supervisor(federation, running, kills)
        supervisor.start()
        submitted = aside.submit(submit, federation)
        supervisor.run(
            lambda: submitted.done() and is_finished(federation, submitted.result()), seconds=SECONDS
        )
        assert [node.end() for node in running.values()] == [0, 0, 0, 0]

    assert supervisor.fired == asked
    everybody = {point for fired in supervisor.fired.values() for point in fired}
    assert everybody == {kill.failpoint for kill in around(set(Step) - {*TROUBLE_STEPS, *LEG_STEPS})}

    job = submitted.result()
    state = state_on_disk(federation, job)
    assert state is not None
    assert (state.outcome, state.burned, state.failed_opens) == ("completed", 0, 0)
    board = {post.place: post for post in posts_on_disk(federation)}
    assert "equivocation" not in refusals(federation)
    assert len(secrets) > 0
    for name in federation.names:
        directory = federation.directory(name)
        said = {post.place: post for post in outbox_posts(directory)}
        assert said == {
            place: post
            for place, post in board.items()
            if place.sender == name and place.kind is not PostKind.PROPOSAL
        }
        assert streams[name] == said[next(p for p in said if p.kind is PostKind.STREAM)].body["sha256"]
        assert list(charges(directory)) == [(1, 1)]
        assert outbox_rows(directory, "SELECT * FROM secrets") == []
        assert outbox_rows(directory, "SELECT * FROM contributions") == []
        assert (directory / "jobs" / job / "model.safetensors").exists()
        kept = json.loads((directory / "jobs" / job / "receipts.json").read_text())
        assert len(kept) == len(federation.names) * (len(federation.names) - 1)  # everybody of everybody
    for path in federation.directory(federation.leader).rglob("*"):
        assert not (path.is_file() and any(secret in path.read_bytes() for secret in secrets)), path
    noted = [entry.payload["sha256"] for entry in read_entries(hub / "trail.db") if entry.kind != REFUSED]
    assert noted == [hashlib.sha256(post.to_bytes()).hexdigest() for post in board.values()]
    assert not list((hub / "spool").iterdir())


@pytest.mark.timeout(SECONDS + 60)
def test_a_failed_open_and_a_disk_from_the_backup_burn_an_attempt_each(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path, max_burned_rounds=2, holdout="random", metrics_epsilon=1.0)
    unlucky = federation.directory("shop-b")
    backup = tmp_path / "backup"

    def back_up() -> None:
        shutil.copytree(unlucky / "outbox", backup)

    def alter_received_sum() -> None:
        (received,) = (unlucky / "outbox").glob("*-sum-1-1")
        altered = bytearray(received.read_bytes())
        altered[-1] ^= 1
        received.write_bytes(altered)

    def restore() -> None:
        shutil.rmtree(unlucky / "outbox")
        shutil.copytree(backup, unlucky / "outbox")

    mine = [
        Kill("after", Step.FINGERPRINT_STORED, back_up),
        Kill("after", Step.SUM_FETCHED, alter_received_sum),
        *around([Step.FAILED_STORED]),
        Kill("before", Step.STREAM_WRITTEN, restore),
        *around([Step.BURN_STORED, Step.COIN_TOSSED]),
    ]
    asked = [kill.failpoint for kill in mine]
    assert set(asked) >= {kill.failpoint for kill in around(set(TROUBLE_STEPS) - set(TRAINING_STEPS))}
    with nodes(federation) as running:
        supervisor = Supervisor(federation, running, {"shop-b": mine}, check_outboxes=False)
        supervisor.start()
        job = submit(federation)
        supervisor.run(lambda: is_finished(federation, job), seconds=SECONDS)
        assert [node.end() for node in running.values()] == [0, 0, 0, 0]

    assert supervisor.fired["shop-b"] == asked
    state = state_on_disk(federation, job)
    assert state is not None
    assert (state.outcome, state.burned, state.failed_opens) == ("completed", 2, 1)
    first_round = [place for place in state.posts if place.sender == "shop-b" and place.round == 1]
    said_of_attempt = {
        attempt: [place.kind for place in first_round if place.attempt == attempt] for attempt in (1, 2)
    }
    assert said_of_attempt == {
        1: [PostKind.EPHEMERAL, PostKind.STREAM, PostKind.RECEIVED, PostKind.FAILED],
        2: [PostKind.EPHEMERAL, PostKind.BURN],
    }
    keys = [e.body["public_key"] for place, e in state.posts.items() if place.kind is PostKind.EPHEMERAL]
    assert len(set(keys)) == len(keys)
    for name in federation.names:
        assert list(charges(federation.directory(name))) == [(1, 1), (1, 2), (1, 3), (2, 1)]
        assert outbox_rows(federation.directory(name), "SELECT * FROM secrets") == []
