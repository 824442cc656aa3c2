"""Silos, carriers and people who want more than one merged list gives."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from policies.signing import PrivateKey
from privacy.devices import DeviceKey, DeviceSealError
from privacy.errors import ArchipelError
from privacy.merging import MergeMasks, key_of_merge
from silo.vertical.artefacts import load_label_model
from silo.vertical.merging.documents import (
    FeaturePart,
    LabelPart,
    MergePartError,
    MergeTicket,
    MergeTrustError,
    open_part,
    seal_part,
)
from silo.vertical.merging.feature import MergeDeniedError, give_part
from silo.vertical.merging.first import FIRST_FILE
from silo.vertical.merging.label import StartedMerge, start_merge
from silo.vertical.merging.person import merge_list
from silo.vertical.serving.desk import LabelDesk
from tests.support.serving_scene import (
    FEATURE,
    JOB,
    LABEL,
    OTHER,
    ServingScene,
    make_merging_scene,
    merge_key,
)

DEVICE = DeviceKey.generate()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ServingScene:
    return make_merging_scene(tmp_path_factory.mktemp("merging"))


@pytest.fixture
def fresh(scene: ServingScene, tmp_path: Path) -> ServingScene:
    return scene.copied(tmp_path)


def start(scene: ServingScene, person: str = "anna") -> StartedMerge:
    return start_merge(LabelDesk(scene.directory(LABEL), JOB), person, DEVICE.address)


def give(scene: ServingScene, ticket: MergeTicket, person: str = "anna", by: str = FEATURE) -> bytes:
    return give_part(scene.directory(by), person, ticket, DEVICE.address)


def forged(
    scene: ServingScene, *, by: str = LABEL, ends: timedelta = timedelta(minutes=10), **other: str
) -> MergeTicket:
    """A ticket that a party makes as it likes, signed with its own key."""
    said = {"job": JOB, "label": LABEL, "device": str(DEVICE.address), "nonce": secrets.token_hex(32)} | other
    expires = int((datetime.now(UTC) + ends).timestamp())
    return MergeTicket(**said, expires=expires).signed_by(scene.parties.parties[by].identity)


def files_of(scene: ServingScene, silo: str) -> bytes:
    files = sorted(path for path in scene.directory(silo).rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in files)


def test_no_silo_ever_has_what_another_gave_the_person(scene: ServingScene) -> None:
    started = start(scene)
    sealed = give(scene, started.ticket)
    features, label = open_part(sealed, DEVICE), open_part(started.part, DEVICE)
    assert isinstance(features, FeaturePart)
    assert isinstance(label, LabelPart)
    at_label, at_feature = files_of(scene, LABEL), files_of(scene, FEATURE)
    numbers = scene.numbers(FEATURE, "anna")
    for said in (sealed, features.features, features.unmasking, numbers.astype("<f8").tobytes()):
        assert said not in at_label
    for said in (started.part, label.own, *(term.loadings for term in label.partners.values())):
        assert said not in at_feature


def test_who_carries_the_parts_reads_nothing_in_them(scene: ServingScene) -> None:
    started = start(scene)
    for sealed in (started.part, give(scene, started.ticket)):
        with pytest.raises(DeviceSealError):
            open_part(sealed, DeviceKey.generate())
        with pytest.raises(DeviceSealError):
            open_part(sealed[:-1] + bytes([sealed[-1] ^ 1]), DEVICE)


def test_a_label_silo_that_puts_in_a_key_of_its_own_gets_no_numbers(scene: ServingScene) -> None:
    with pytest.raises(MergeTrustError, match="another device"):
        give(scene, forged(scene, device=str(DeviceKey.generate().address)))


def test_a_ticket_is_worth_one_part_whoever_logs_in(scene: ServingScene) -> None:
    ticket = start(scene).ticket
    give(scene, ticket)
    for person in ("anna", "ben"):
        with pytest.raises(MergeDeniedError, match="used here before"):
            give(scene, ticket, person)
    give(scene, ticket, by=OTHER)


def test_masks_are_drawn_for_all_of_a_ticket(scene: ServingScene) -> None:
    nonce = "ab" * 32
    first = forged(scene, nonce=nonce)
    later = forged(scene, nonce=nonce, ends=timedelta(minutes=20))
    parts = [open_part(give(scene, ticket), DEVICE) for ticket in (first, later)]
    assert parts[0].unmasking != parts[1].unmasking  # type: ignore[union-attr]
    masks = [
        MergeMasks.draw(key_of_merge(merge_key(FEATURE), ticket.digest), 2, 2).of_loadings
        for ticket in (first, later)
    ]
    assert not np.isin(*masks).any()


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        ({"by": OTHER}, MergeTrustError, "not signed"),
        ({"label": "stranger"}, MergeTrustError, "no member"),
        ({"ends": timedelta(minutes=-10)}, MergeTrustError, "over"),
        ({"ends": timedelta(days=1)}, MergeTrustError, "over, or lasts too long"),
        ({"job": "ee" * 16}, MergeDeniedError, "no finished job"),
        ({"by": OTHER, "label": OTHER}, MergeDeniedError, "no finished job"),
    ],
)
def test_a_ticket_of_somebody_elses_making_is_worth_nothing(
    scene: ServingScene, said: dict[str, str], error: type[ArchipelError], why: str
) -> None:
    with pytest.raises(error, match=why):
        give(scene, forged(scene, **said))  # type: ignore[arg-type]


def test_a_part_of_another_ticket_or_maker_is_not_merged(scene: ServingScene) -> None:
    started, other = start(scene), start(scene)
    part, of_other = give(scene, started.ticket), give(scene, other.ticket)
    charter = scene.parties.charter
    assert merge_list((started.part, part), DEVICE, charter, 5).rows
    with pytest.raises(MergeTrustError, match="another list"):
        merge_list((started.part, of_other), DEVICE, charter, 5)
    opened = open_part(part, DEVICE)
    forgery = opened.signed_by(PrivateKey.generate())
    with pytest.raises(MergeTrustError, match=f"not signed by {FEATURE}"):
        merge_list((started.part, seal_part(forgery, DEVICE.address)), DEVICE, charter, 5)


def test_a_part_sealed_as_the_other_kind_does_not_open(scene: ServingScene) -> None:
    sealed = start(scene).part
    turned = sealed.replace(b"merge-label-part", b"merge-feature-part", 1)
    with pytest.raises(DeviceSealError):
        open_part(turned, DEVICE)
    with pytest.raises(MergePartError):
        MergeTicket.parse(b"{}")


def test_many_lists_of_one_person_do_not_show_the_model(scene: ServingScene) -> None:
    """As many tickets as the model has columns, and more: each list is the same, and so is what it tells."""
    lists = []
    for _ in range(5):
        started = start(scene)
        lists.append(
            merge_list((started.part, give(scene, started.ticket)), DEVICE, scene.parties.charter, 50)
        )
    assert all(made.rows == lists[0].rows for made in lists)


def own_scores(scene: ServingScene, person: str = "anna") -> tuple[bytes, list[int]]:
    """What a label part says of a person's history: the exact scores of it, and the places of what is had."""
    part = open_part(start(scene, person).part, DEVICE)
    assert isinstance(part, LabelPart)
    return part.own, part.seen


def features_of(scene: ServingScene, person: str = "anna") -> bytes:
    part = open_part(give(scene, start(scene, person).ticket, person), DEVICE)
    assert isinstance(part, FeaturePart)
    return part.features


def test_who_changes_their_history_and_begins_again_reads_no_other_sums(fresh: ServingScene) -> None:
    """Scores of as many histories as there are items would give everybody's sums away, exactly."""
    fresh.has_now(LABEL, "anna", [0])
    first, seen = own_scores(fresh)
    assert seen == [0]
    for number in (1, 2):
        fresh.has_now(LABEL, "anna", range(number + 1))
        assert own_scores(fresh, "anna " if number == 2 else "anna") == (first, list(range(number + 1)))
    fresh.has_now(LABEL, "ben", range(3))
    assert own_scores(fresh, "ben")[0] != first


def test_who_edits_their_rows_at_a_feature_silo_has_the_numbers_of_their_first_list(
    fresh: ServingScene,
) -> None:
    """Other numbers for the same history would be as many equations for the label silo's loadings."""
    first = features_of(fresh)
    for number in (1, 2):
        fresh.has_now(FEATURE, "anna", [number])
        assert features_of(fresh) == first
    fresh.has_now(FEATURE, "ben", [1])
    assert features_of(fresh, "ben") != first


@pytest.mark.parametrize("silo", [LABEL, FEATURE])
def test_who_was_erased_is_forgotten_and_stays_nobody_for_the_job(fresh: ServingScene, silo: str) -> None:
    says = features_of if silo == FEATURE else lambda scene: own_scores(scene)[0]
    first = says(fresh)
    assert any(first)
    fresh.has_now(silo, "anna", [])
    assert not any(says(fresh))
    with closing(sqlite3.connect(fresh.directory(silo) / "jobs" / JOB / FIRST_FILE)) as db:
        assert db.execute("SELECT user_id, value FROM first").fetchall() == [("anna", b"")]
    fresh.has_now(silo, "anna", [1, 2])
    assert not any(says(fresh))


def test_the_person_and_the_feature_silo_together_take_the_masks_off(scene: ServingScene) -> None:
    """What no mask prevents, and the documents say: with both, the model's loadings are read."""
    started = start(scene)
    label = open_part(started.part, DEVICE)
    assert isinstance(label, LabelPart)
    model = label.partners[FEATURE].model(len(label.item_ids))
    masks = MergeMasks.draw(key_of_merge(merge_key(FEATURE), started.ticket.digest), *model.loadings.shape)
    read = np.ldexp((model.loadings - masks.of_loadings).view(np.int64).astype(float), -model.exponent)
    _, terms = load_label_model(scene.directory(LABEL), JOB).terms(scene.items_of(LABEL, "anna"))
    assert np.allclose(read, terms[FEATURE][0], atol=1e-6)


def test_what_was_given_is_counted_without_the_person(scene: ServingScene) -> None:
    give(scene, start(scene).ticket, "ben")
    book = (Path(scene.directory(FEATURE)) / "consent.db").read_bytes()
    assert b"ben" not in book
