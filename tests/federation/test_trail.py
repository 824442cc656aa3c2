from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

from federation.bulletin import Bulletin
from federation.quotas import CoordinatorLimits, RefusalMeter
from federation.store import Store
from federation.trail import ACCEPTED, REFUSED, Trail
from policies.signing import PrivateKey
from privacy.errors import HostError, ProtocolError
from privacy.ledger.chain import read_entries, verify_chain
from tests.contracts.board_scene import HUB, Scene, scene_plan

KEY = PrivateKey.generate()
SCENE = Scene(scene_plan())


def opened(directory: Path) -> tuple[Bulletin, Trail]:
    trail = Trail(directory, KEY)
    bulletin = Bulletin(
        Store(directory),
        trail,
        HUB,
        lambda: datetime(2026, 1, 1, tzinfo=UTC),
        meter=RefusalMeter(CoordinatorLimits()),
    )
    bulletin.load()
    return bulletin, trail


def noted(directory: Path) -> list[tuple[str, int]]:
    entries = read_entries(directory / "trail.db")
    return [(entry.payload["kind"], entry.payload["post"]) for entry in entries if entry.kind == ACCEPTED]


def test_every_accepted_post_is_noted_once_in_a_chain_that_verifies(tmp_path: Path) -> None:
    bulletin, trail = opened(tmp_path)
    bulletin.publish(SCENE.start.job, SCENE.proposal)
    bulletin.publish(SCENE.start.job, SCENE.denial("a"))
    bulletin.publish(SCENE.start.job, SCENE.denial("a"))
    bulletin.refused("b", ProtocolError("no"))
    trail.close()
    assert noted(tmp_path) == [("proposal", 1), ("denial", 2)]
    refused = [entry.payload for entry in read_entries(tmp_path / "trail.db") if entry.kind == REFUSED]
    assert refused == [{"party": "b", "code": "protocol", "what": "no"}]
    assert list(verify_chain(tmp_path / "trail.db", verify)) == []


def test_what_a_crash_kept_from_the_trail_is_noted_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(SCENE.start.job, SCENE.proposal, datetime.now(UTC))
    store.append(SCENE.start.job, SCENE.denial("a"), datetime.now(UTC))
    store.close()
    for _ in range(2):
        _, trail = opened(tmp_path)
        trail.close()
        assert noted(tmp_path) == [("proposal", 1), ("denial", 2)]


def verify(message: bytes, signature: bytes) -> None:
    KEY.public_key.verify(message, base64.b64encode(signature).decode())


class FullTrail(Trail):
    """A trail on a disk that is full for a while."""

    is_full = True

    def accepted(self, *args: object) -> None:
        if self.is_full:
            raise HostError("the disk is full")
        super().accepted(*args)  # type: ignore[arg-type]

    def refused(self, party: str, code: str, what: str) -> None:
        raise HostError("the disk is full")


def test_a_trail_that_cannot_be_written_lags_and_stops_nobody(tmp_path: Path) -> None:
    trail = FullTrail(tmp_path, KEY)
    bulletin = Bulletin(
        Store(tmp_path),
        trail,
        HUB,
        lambda: datetime(2026, 1, 1, tzinfo=UTC),
        meter=RefusalMeter(CoordinatorLimits()),
    )
    bulletin.load()
    assert bulletin.publish(SCENE.start.job, SCENE.proposal) == (1, True)
    bulletin.refused("b", ProtocolError("no"))
    assert noted(tmp_path) == []
    trail.is_full = False
    bulletin.publish(SCENE.start.job, SCENE.denial("a"))
    assert noted(tmp_path) == [("proposal", 1), ("denial", 2)]
