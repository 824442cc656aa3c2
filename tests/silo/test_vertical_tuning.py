"""Weights are chosen on half of the people in session; what they are worth is said of the other half."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean
from silo.data.splits import hold_out
from silo.vertical.artefacts import LabelModel
from silo.vertical.joint.model import FeatureMoments, Weights
from silo.vertical.joint.tuning import MIN_PEOPLE, TooFewSessionsError, tune

NUM_PEOPLE, NUM_ITEMS, NUM_TASTES = 200, 40, 4


def world(*, informative: bool) -> tuple[LabelModel, Any, Any, dict[str, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(3)
    items = Catalogue.from_items(CatalogueItem(item_id=f"i{n:02d}") for n in range(NUM_ITEMS))
    tastes = rng.integers(NUM_TASTES, size=NUM_PEOPLE)
    weights = np.where(np.arange(NUM_ITEMS)[None] % NUM_TASTES == tastes[:, None], 8.0, 1.0)
    rows = [
        (f"p{person:03d}", items.item_ids[item])
        for person in range(NUM_PEOPLE)
        for item in rng.choice(NUM_ITEMS, 6, replace=False, p=weights[person] / weights[person].sum())
    ]
    table = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    train, held_out = hold_out(clean(table, items, max_interactions_per_user=50)[0], "random", fraction=0.5)
    told = tastes if informative else rng.permutation(tastes)
    features = np.eye(NUM_TASTES)[told]
    matrix = train.matrix().toarray()
    model = LabelModel(
        plan=SimpleNamespace(
            model=SimpleNamespace(label_norm=10.0), catalogue=SimpleNamespace(items=NUM_ITEMS)
        ),  # type: ignore[arg-type]
        items=np.arange(NUM_ITEMS),
        item_gram=matrix.T @ matrix,
        counts=matrix.sum(axis=0),
        partners={"platform": FeatureMoments(matrix.T @ features, features.T @ features)},
        weights=Weights(100.0, 0.5),
    )
    sessions = {"platform": dict(zip(train.user_ids, features, strict=True))}
    return model, train, held_out, sessions


def test_a_partner_who_knows_tastes_is_trusted_and_helps_those_who_chose_nothing() -> None:
    model, train, held_out, sessions = world(informative=True)
    tuned = tune(model, train, held_out, sessions)
    assert tuned.num_people == NUM_PEOPLE
    assert tuned.metrics["with_partners"] > 1.15 * tuned.metrics["alone"]
    assert tuned.model.weights.mixing > 0
    assert tuned.model.item_gram is model.item_gram


def test_a_partner_who_knows_nothing_changes_little() -> None:
    tuned = tune(*world(informative=False))
    assert tuned.metrics["with_partners"] == pytest.approx(tuned.metrics["alone"], rel=0.1)


def test_few_people_choose_nothing() -> None:
    model, train, held_out, sessions = world(informative=True)
    few = {"platform": dict(list(sessions["platform"].items())[: MIN_PEOPLE - 1])}
    with pytest.raises(TooFewSessionsError):
        tune(model, train, held_out, few)
    with pytest.raises(TooFewSessionsError):
        tune(model, train, train.select([]), sessions)
