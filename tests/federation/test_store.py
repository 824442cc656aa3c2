from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.messages import BlobKind, BlobRef
from federation.store import Store
from privacy.errors import EquivocationError, ProtocolError
from tests.contracts.board_scene import Scene, scene_plan
from tests.contracts.transport_contract import some_bytes

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SCENE = Scene(scene_plan())
JOB = SCENE.start.job
REF = BlobRef(job=JOB, kind=BlobKind.CATALOGUE, sender="a")
DATA = some_bytes(5000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_posts_come_back_in_order_with_the_time_they_came(store: Store, tmp_path: Path) -> None:
    first = store.append(JOB, SCENE.proposal, NOW)
    second = store.append(JOB, SCENE.denial("a"), NOW)
    assert store.append(JOB, SCENE.proposal, datetime.now(UTC)) == first
    assert first.seq < second.seq
    store.close()
    again = Store(tmp_path)
    assert again.posts() == [first, second]
    assert again.posts(after=first.seq) == [second]


def test_a_place_keeps_its_first_bytes(store: Store) -> None:
    store.append(JOB, SCENE.sealed(SCENE.ephemeral(), "a"), NOW)
    with pytest.raises(EquivocationError):
        store.append(JOB, SCENE.sealed(SCENE.ephemeral(), "a"), NOW)
    assert len(store.posts()) == 1


def test_bulk_grows_resumes_and_gets_its_name_once_it_fits(store: Store, tmp_path: Path) -> None:
    assert store.append_blob(REF, 0, DATA[:2000], num_bytes=5000) == 2000
    again = Store(tmp_path)
    assert again.blob_offset(REF) == 2000
    assert not again.is_complete(REF)
    with pytest.raises(ProtocolError, match="not here"):
        again.read_blob(REF, 0, 10)
    assert again.append_blob(REF, 2000, DATA[2000:], num_bytes=5000) == 5000
    again.complete_blob(REF, hashlib.sha256(DATA).hexdigest())
    assert again.is_complete(REF)
    assert again.read_blob(REF, 4990, 100) == DATA[4990:]
    assert again.append_blob(REF, 5000, b"more", num_bytes=5000) == 5000
    assert again.blob_path(REF).read_bytes() == DATA


def test_bulk_out_of_place_or_too_long_changes_nothing(store: Store) -> None:
    store.append_blob(REF, 0, DATA[:100], num_bytes=5000)
    for offset in (0, 50, 101):
        with pytest.raises(ProtocolError, match="100 bytes are here"):
            store.append_blob(REF, offset, b"x", num_bytes=5000)
    with pytest.raises(ProtocolError, match="beyond the 150"):
        store.append_blob(REF, 100, DATA[:51], num_bytes=150)
    assert store.blob_offset(REF) == 100


def test_bulk_of_another_digest_is_dropped(store: Store) -> None:
    store.append_blob(REF, 0, DATA, num_bytes=5000)
    with pytest.raises(ProtocolError, match="differ from their signed manifest"):
        store.complete_blob(REF, "0" * 64)
    assert store.blob_offset(REF) == 0


def test_a_spool_is_erased_as_a_whole(store: Store) -> None:
    store.append_blob(REF, 0, DATA, num_bytes=5000)
    assert store.has_spool(JOB)
    store.erase_spool(JOB)
    store.erase_spool(JOB)
    assert not store.has_spool(JOB)
