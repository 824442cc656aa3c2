"""What the board shows of a silo must be in its outbox, word for word, before it says anything more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from federation.messages import PostKind
from federation.rounds import JobState, Phase, advance
from federation.transport.base import Connection
from silo.jobs.context import JobContext
from silo.jobs.records import check_records
from silo.site import JobRecordLostError, RecordLostError, Site
from silo.worker import Worker
from tests.contracts.board_scene import Scene, scene_plan
from tests.contracts.small_federation import make_small_federation

SILOS = ("shop-a", "shop-b", "shop-c")
ME = "shop-b"


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(scene_plan(SILOS, max_burned_rounds=3))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    federation = make_small_federation(tmp_path, silos=SILOS)
    with Site(federation.directory(ME)) as opened:
        yield opened


def context_of(site: Site, state: JobState) -> JobContext:
    return JobContext(site, cast(Connection, None), Worker(), state)


def remember(site: Site, state: JobState, *, but: PostKind | None = None) -> None:
    for place, envelope in state.posts.items():
        if place.sender == ME and place.kind is not but:
            site.outbox.store_post(envelope)


def test_a_disk_that_knows_everything_is_fine_in_every_phase(scene: Scene, site: Site) -> None:
    state, stored = scene.start, set()
    while state.phase is not Phase.ENDED:
        state = advance(state, scene.due(state)[0])
        for place, envelope in state.posts.items():
            if place.sender == ME and place not in stored:
                site.outbox.store_post(envelope)
                stored.add(place)
        check_records(context_of(site, state))


@pytest.mark.parametrize("lost", [PostKind.ACCEPTANCE, PostKind.FINGERPRINT])
def test_a_lost_beginning_is_lost_for_the_whole_job(scene: Scene, site: Site, lost: PostKind) -> None:
    state = scene.until(scene.start, Phase.COLLECTING)
    remember(site, state, but=lost)
    with pytest.raises(JobRecordLostError, match=lost.value):
        check_records(context_of(site, state))


def test_a_lost_post_of_this_attempt_costs_this_attempt_only(scene: Scene, site: Site) -> None:
    state = scene.until(scene.start, Phase.RECEIVING)
    remember(site, state, but=PostKind.STREAM)
    with pytest.raises(RecordLostError, match="stream") as caught:
        check_records(context_of(site, state))
    assert not isinstance(caught.value, JobRecordLostError)
    burned = advance(state, scene.burn(state, "shop-c"))
    check_records(context_of(site, burned))


def test_another_key_than_the_one_on_the_board_never_masks(scene: Scene, site: Site) -> None:
    """A restored disk drew once more before the whole board was read: the second key must not be used."""
    state = scene.until(scene.start, Phase.COLLECTING)
    for place, envelope in state.posts.items():
        if place.sender == ME and (place.kind, place.round) != (PostKind.EPHEMERAL, 1):
            site.outbox.store_post(envelope)
    site.outbox.store_post(scene.sealed(scene.ephemeral(), ME, at=(1, 1)))
    with pytest.raises(RecordLostError, match="ephemeral"):
        check_records(context_of(site, state))


def test_after_the_last_round_no_key_is_needed(scene: Scene, site: Site) -> None:
    check_records(context_of(site, scene.until(scene.start, Phase.CLOSING)))
