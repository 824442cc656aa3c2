"""A vertical job with everything real but the wire: lists, slots, ciphertexts, noise and the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from federation.legs.legs import legs
from federation.messages import PostKind
from federation.rounds import JobState
from policies.plans.vertical.price import moments_event
from policies.silo_policy import Dataset, Source
from privacy.alignment.points import check_points
from privacy.encryption.crossmoments.noise import noise_std
from silo.forecasts.vertical_traffic import parcel_bytes
from silo.vertical.alignment.people import People
from silo.vertical.alignment.tasks import OwnListTask, blind_own
from silo.vertical.artefacts import load_feature_basis, load_label_model
from silo.vertical.moments.files import moments_shape
from tests.contracts.family_contract import make_catalogue
from tests.contracts.federation_directories import SILOS
from tests.support.vertical_federation import CAPACITIES, VerticalFederation, make_vertical_federation

NUM_COMMON, NUM_OWN, LABEL_ITEMS, DIMENSIONS = 60, 10, 20, 4


def tastes() -> Mapping[str, pl.DataFrame]:
    """Two kinds of people; what they have in one silo says what they have in another."""
    rng = np.random.default_rng(5)
    items = make_catalogue().item_ids
    tables = {}
    for number, silo in enumerate(SILOS):
        common = [f"person-{n}" for n in range(NUM_COMMON)]
        own = [f"{silo}-{n}" for n in range(NUM_OWN)]
        rows = [
            (
                user,
                items[int(item) * 2 + place % 2]
                if number == 0
                else f"{silo}-item-{int(item) * 2 + place % 2}",
            )
            for place, user in enumerate(common + own)
            for item in rng.choice(len(items) // 2, 6, replace=False)
        ]
        tables[silo] = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    return tables


def federation_of(directory: Path, monkeypatch: pytest.MonkeyPatch, **draft: object) -> VerticalFederation:
    wanted = {"label_items": LABEL_ITEMS, "dimensions": DIMENSIONS, "label_norm": 2.0, "target_epsilon": 90.0}
    return make_vertical_federation(directory, monkeypatch, **({"rows": tastes()} | wanted | draft))


def finished(federation: VerticalFederation) -> JobState:
    state: JobState = federation.play(federation.until_ended)
    assert state.outcome == "completed", state.reason
    return state


def check_sizes(state: JobState) -> None:
    """Every file has the size that a forecast tells beforehand."""
    slots = state.spine_slots or 0
    for leg in legs(state.plan, slots):
        for sender in leg.senders:
            post = state.post(PostKind.STREAM, sender, round=leg.number, attempt=1)
            assert post is not None
            assert post.body["num_bytes"] == parcel_bytes(state.plan, leg, sender, slots), leg.in_words


def test_the_label_silo_ends_with_the_moments_of_the_people_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_of(tmp_path, monkeypatch)
    state = finished(federation)
    check_sizes(state)
    directories = {name: federation.parties.parties[name].directory for name in SILOS}
    model = load_label_model(directories[SILOS[0]], state.job)
    assert model.items.size == LABEL_ITEMS
    rows = tastes()
    for partner in SILOS[1:]:
        basis = load_feature_basis(directories[partner], state.job)
        people = [f"person-{n}" for n in range(NUM_COMMON)]
        numbers = basis.features(people)
        assert np.linalg.norm(numbers, axis=1).max() <= 1 + 1e-9
        labels = np.zeros((NUM_COMMON, LABEL_ITEMS))
        column = {make_catalogue().item_ids[item]: place for place, item in enumerate(model.items)}
        for user, item in rows[SILOS[0]].iter_rows():
            if user.startswith("person-") and item in column:
                labels[int(user.split("-")[1]), column[item]] = 1.0
        lengths = np.linalg.norm(labels, axis=1, keepdims=True)
        labels *= np.minimum(1.0, 2.0 / np.maximum(lengths, 1e-9))
        error = model.partners[partner].cross - labels.T @ numbers
        shape = moments_shape(federation.plan, state.spine_slots or 0, partner)
        promised = noise_std(moments_event(federation.plan).noise_multiplier, shape)
        assert error.std() == pytest.approx(promised, rel=0.35)
        assert np.abs(labels.T @ numbers).max() > 20 * promised


def test_more_people_than_places_are_thinned_and_only_their_silo_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can tell: the list has its length, the job goes on, and no post says a word."""
    crowded, capacity = SILOS[2], CAPACITIES[SILOS[2]]
    rows = dict(tastes())
    extra = {"user_id": [f"extra-{n}" for n in range(80)], "item_id": [f"{crowded}-item-0"] * 80}
    rows[crowded] = pl.concat([rows[crowded], pl.DataFrame(extra)])
    federation = federation_of(tmp_path, monkeypatch, rows=rows)
    target, people = tmp_path / "points", tmp_path / "people"
    task = OwnListTask(
        directory=federation.parties.parties[crowded].directory,
        plan=federation.plan,
        dataset=Dataset(
            source=Source(parquet="data/*.parquet"),
            max_interactions_per_user=100,
            population="people",
            max_silos_per_user=3,
        ),
        me=crowded,
        pepper=bytes(32),
        secret=bytes(range(32)),
        run="run",
        people=people,
        target=target,
    )
    (remark,) = blind_own(task)
    kept = len(People.load(people).words)
    assert f"{150 - kept} of 150 people were left out" in remark
    assert 0 < kept <= capacity
    first = target.read_bytes()
    check_points(first, capacity)
    assert blind_own(task) == ()
    assert target.read_bytes() == first
