"""Following a job of real processes from outside: what their disks say, and what all must agree on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from federation.messages import PostKind
from federation.rounds import JobState, Phase
from silo.tensor_files import sha256_of
from tests.contracts.small_federation import SmallFederation, state_on_disk, wait_until
from tests.support.supervisor import charges, outbox_rows

SECONDS = 150.0


def wait_for(federation: SmallFederation, job: str, holds: Callable[[JobState], bool]) -> JobState:
    """The first state seen on the coordinator's disk of which something is true."""
    seen: list[JobState] = []

    def has_come() -> bool:
        state = state_on_disk(federation, job)
        if state is not None and holds(state):
            seen.append(state)
        elif state is not None and state.phase is Phase.ENDED:
            raise AssertionError(f"the job is over: {state.outcome}, {state.reason}")
        return bool(seen)

    wait_until(has_come, seconds=SECONDS)
    return seen[0]


def wait_for_end(federation: SmallFederation, job: str) -> JobState:
    """The end of a job, once every silo's agent is done with it."""

    def is_over(name: str) -> bool:
        path = federation.directory(name) / "jobs" / job / "state.json"
        return path.exists() and bool(json.loads(path.read_bytes())["finished"])

    wait_until(lambda: all(is_over(name) for name in federation.names), seconds=SECONDS)
    state = state_on_disk(federation, job)
    assert state is not None
    return state


def card_of(federation: SmallFederation, name: str, job: str) -> dict[str, Any]:
    """What a silo's model says of itself."""
    path = federation.directory(name) / "jobs" / job / "model-card.json"
    return dict(json.loads(path.read_bytes()))


def check_one_checkpoint(federation: SmallFederation, job: str) -> str:
    """Every silo has the same weights, bit for bit, and its card says so; returns their digest."""
    found = {
        sha256_of(federation.directory(name) / "jobs" / job / "checkpoint.safetensors")
        for name in federation.names
    }
    assert {card_of(federation, name, job)["checkpoint"] for name in federation.names} == found
    assert len(found) == 1
    return found.pop()


def check_charges(federation: SmallFederation, state: JobState) -> None:
    """Whatever left a silo was charged once, nothing is left reserved, nothing secret is left at all.

    A kill between charge and post leaves a charge without a release: more may be charged than was said.
    """
    for name in federation.names:
        directory = federation.directory(name)
        said = {
            (place.round, place.attempt)
            for place in state.posts
            if place.sender == name and place.kind is PostKind.EPHEMERAL and place.round > 0
        }
        assert said <= set(charges(directory, state.job))
        assert len(charges(directory, state.job)) <= len(said) + 1
        for table in ("secrets", "contributions"):
            assert outbox_rows(directory, f"SELECT * FROM {table}") == []
        job = directory / "jobs" / state.job
        assert not [*job.glob("aggregate-*"), *job.glob("*.part"), *job.glob("state.safetensors")]


def check_every_round_has_one_digest(state: JobState) -> None:
    """Whoever took part in a round signed the same digest for it."""
    for number, attempt in enumerate(state.opened, 1):
        digests = state.opened_digests(number, attempt)
        assert set(digests) == set(state.contributors_of(number, attempt))
        assert len(set(digests.values())) == 1
