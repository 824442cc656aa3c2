"""A list merged on the person's device is the one that a consented session would have shown."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from policies.charters.charter import Charter
from privacy.devices import DeviceKey, DeviceKeyError
from privacy.errors import UsageError
from silo.recommending import describe
from silo.tensor_files import TensorFileError, load_tables, save_tables
from silo.vertical.artefacts import MODEL_FILE, load_label_model
from silo.vertical.joint.model import FeatureMoments
from silo.vertical.merging.documents import LabelPart, MergePartError, open_part
from silo.vertical.merging.feature import MergeDeniedError, give_part
from silo.vertical.merging.keys import KEYS_FILE, MergeKeyError, load_merge_keys
from silo.vertical.merging.label import StartedMerge, start_merge
from silo.vertical.merging.person import MergedList, load_device_key, make_device_key, merge_list
from silo.vertical.serving.asking import ServingDeniedError
from silo.vertical.serving.consent import ConsentBook
from silo.vertical.serving.desk import LabelDesk, serve
from silo.vertical.serving.issuing import ConsentNotOfferedError
from tests.support.serving_scene import (
    CATALOGUE,
    FEATURE,
    JOB,
    LABEL,
    OTHER,
    PURPOSE,
    ServingScene,
    make_merging_scene,
)

DEVICE = DeviceKey.generate()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ServingScene:
    return make_merging_scene(tmp_path_factory.mktemp("merging"))


@pytest.fixture
def fresh(scene: ServingScene, tmp_path: Path) -> ServingScene:
    return scene.copied(tmp_path)


def start(scene: ServingScene, person: str = "anna", device: DeviceKey = DEVICE) -> StartedMerge:
    return start_merge(LabelDesk(scene.directory(LABEL), JOB), person, device.address)


def give(scene: ServingScene, started: StartedMerge, person: str = "anna", *, by: str = FEATURE) -> bytes:
    return give_part(scene.directory(by), person, started.ticket, DEVICE.address)


def merged(scene: ServingScene, *parts: bytes, k: int = 5) -> MergedList:
    return merge_list(parts, DEVICE, charter_of(scene), k)


def charter_of(scene: ServingScene) -> Charter:
    return scene.parties.charter


def expected(scene: ServingScene, person: str, *partners: str) -> list[tuple[str, float]]:
    numbers = {silo: scene.numbers(silo, person) for silo in partners}
    model = load_label_model(scene.directory(LABEL), JOB)
    ranked = model.recommend(scene.items_of(LABEL, person), numbers, top=5)
    return [(CATALOGUE.items[item].item_id, score) for item, score in ranked]


@pytest.mark.parametrize("partners", [(FEATURE,), (OTHER,), (FEATURE, OTHER)])
def test_the_list_is_the_one_of_a_consented_session(scene: ServingScene, partners: tuple[str, ...]) -> None:
    started = start(scene)
    made = merged(scene, started.part, *(give(scene, started, by=silo) for silo in partners))
    wanted = expected(scene, "anna", *partners)
    assert [row.item_id for row in made.rows] == [item for item, _ in wanted]
    assert np.allclose([row.score for row in made.rows], [score for _, score in wanted], rtol=1e-5, atol=1e-6)
    assert made.merged == partners
    assert set(made.merged) | set(made.missing) == {FEATURE, OTHER}
    assert [row.item_id for row in made.rows] != [item for item, _ in expected(scene, "anna")]


def test_somebody_new_at_the_label_silo_is_known_by_their_own_numbers(scene: ServingScene) -> None:
    started = start(scene, "nobody-here")
    made = merged(scene, give(scene, started, "ben"), started.part)
    model = load_label_model(scene.directory(LABEL), JOB)
    wanted = model.recommend(np.array([], dtype=np.int64), {FEATURE: scene.numbers(FEATURE, "ben")}, top=5)
    assert [row.item_id for row in made.rows] == [CATALOGUE.items[item].item_id for item, _ in wanted]


def test_recommend_says_where_partners_come_in(scene: ServingScene) -> None:
    listed = asyncio.run(serve(scene.directory(LABEL), JOB, "anna", 5, files=(), words=()))
    assert (listed.mode, listed.merges) == ("own_features_only", True)
    assert any("archipel merge start" in str(part) for part in describe(listed.to_json("anna")))
    with pytest.raises(ServingDeniedError) as refused:
        asyncio.run(serve(scene.directory(LABEL), JOB, "anna", 5, files=(), words=(f"{FEATURE}=token",)))
    assert "archipel merge start" in refused.value.remedy


def test_a_label_silo_of_another_mode_begins_no_list(fresh: ServingScene) -> None:
    fresh.sign(LABEL, mode="consented_session")
    with pytest.raises(ServingDeniedError, match="consented_session"):
        start(fresh)


def test_a_feature_silo_gives_under_its_policy_only(fresh: ServingScene) -> None:
    started = start(fresh)
    with pytest.raises(ConsentNotOfferedError):
        fresh.issue()
    (fresh.directory(FEATURE) / "paused").touch()
    with pytest.raises(MergeDeniedError, match="paused"):
        give(fresh, started)
    (fresh.directory(FEATURE) / "paused").unlink()
    fresh.sign(FEATURE, mode="consented_session", answers={LABEL: [PURPOSE]})
    with pytest.raises(MergeDeniedError, match="policy"):
        give(fresh, started)
    with ConsentBook(fresh.directory(FEATURE) / "consent.db") as book:
        counts = {outcome: count for _, _, outcome, count in book.counts(datetime(2020, 1, 1, tzinfo=UTC))}
    assert (counts["held"], counts["policy"]) == (1, 1)


def test_a_label_silo_that_is_paused_begins_no_list(fresh: ServingScene) -> None:
    (fresh.directory(LABEL) / "paused").touch()
    with pytest.raises(ServingDeniedError, match="paused"):
        start(fresh)


def test_a_label_silo_that_withdrew_the_purpose_begins_no_list(fresh: ServingScene) -> None:
    fresh.sign(LABEL, mode="user_side_merge", purposes={"ranking-of-offers": "purchases"})
    with pytest.raises(ServingDeniedError, match="no longer gives"):
        start(fresh)


def test_which_items_are_the_most_frequent_is_told_to_no_device(fresh: ServingScene) -> None:
    path = fresh.directory(LABEL) / "jobs" / JOB / MODEL_FILE
    model = load_label_model(fresh.directory(LABEL), JOB)
    some = np.arange(len(CATALOGUE) - 1)
    replace(
        model, items=some, item_gram=model.item_gram[np.ix_(some, some)], counts=model.counts[some],
        partners={name: FeatureMoments(of.cross[some], of.gram) for name, of in model.partners.items()},
    ).save(path)  # fmt: skip
    with pytest.raises(ServingDeniedError, match="11 most frequent of 12 items"):
        start(fresh)


@pytest.mark.parametrize(
    "missing", ["items", "item_gram", "counts", "weights", "feature_ridges", "gram", "cross"]
)
def test_a_label_model_without_one_of_its_tables_is_refused(fresh: ServingScene, missing: str) -> None:
    path = fresh.directory(LABEL) / "jobs" / JOB / MODEL_FILE
    kind = "archipel-joint-model/v1"
    tables, about = load_tables(path, kind)
    kept = {name: table for name, table in tables.items() if name.partition(".")[0] != missing}
    assert len(kept) < len(tables)
    save_tables(path, kind, kept, about)
    with pytest.raises(TensorFileError, match="not those of a label silo") as refusal:
        load_label_model(fresh.directory(LABEL), JOB)
    assert refusal.value.where == str(path)


def test_a_job_without_keys_says_so(fresh: ServingScene) -> None:
    path = fresh.directory(LABEL) / "jobs" / JOB / KEYS_FILE
    path.write_text('{"kind": "archipel-merge-keys/v1", "keys": {"shop-b": "ab"}}')
    with pytest.raises(MergeKeyError, match="no keys"):
        load_merge_keys(path.parent)
    path.unlink()
    with pytest.raises(MergeKeyError, match="left no keys"):
        start(fresh)


def test_a_part_names_nobody_and_says_what_it_is(scene: ServingScene) -> None:
    started = start(scene)
    opened = open_part(started.part, DEVICE)
    assert isinstance(opened, LabelPart)
    seen = {opened.item_ids[place] for place in opened.seen}
    assert seen == {CATALOGUE.items[item].item_id for item in scene.items_of(LABEL, "anna")}
    assert b"anna" not in opened.to_bytes() + started.ticket.to_bytes()


def test_what_is_no_whole_list_is_told(scene: ServingScene) -> None:
    started = start(scene)
    part = give(scene, started)
    for parts, said in (
        ((started.part,), "0 of others"),
        ((part,), "0 parts"),
        ((started.part, part, part), "two parts"),
        ((started.part, part, started.part), "2 parts"),
    ):
        with pytest.raises(UsageError, match=said):
            merged(scene, *parts)
    with pytest.raises(UsageError, match="0 items"):
        merged(scene, started.part, part, k=0)
    with pytest.raises(MergePartError, match="no part"):
        merged(scene, b"something else", part)


def test_a_devices_key_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    made = make_device_key(path)
    assert str(load_device_key(path).address) == str(made.address)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="already"):
        make_device_key(path)
    path.write_text("nothing")
    with pytest.raises(DeviceKeyError):
        load_device_key(path)
