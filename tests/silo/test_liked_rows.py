"""What somebody disliked is not shown to them again, and no list is made of it either."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from silo.data.catalogue import Catalogue
from silo.local.cold_start import MIN_LIST, new_item
from silo.models.recommender import Recommender
from silo.recommending import recommend_alone
from silo.recommending_all import recommend_all
from silo.vertical.artefacts import load_label_model
from silo.vertical.serving.desk import LabelDesk
from tests.contracts.family_contract import make_catalogue, make_interactions
from tests.contracts.federation_directories import free_port
from tests.support.local_silo import POLICY, finish_job, make_local_silo
from tests.support.serving_scene import CATALOGUE, JOB, LABEL, make_serving_scene

ROWS = {
    "user_id": ["ann", "ann", "ben"],
    "item_id": ["i0000", "i0003", "i0003"],
    "timestamp": [1, 2, 3],
    "rating": [5.0, 1.0, 1.0],
}


def chain(items: int) -> Recommender:
    """After item i comes item i + 1; the last item is the most popular."""
    one = np.eye(items, dtype=np.float32)
    zeros = np.zeros(items, np.float32)
    return Recommender(one, np.roll(one, 1, axis=0), zeros, np.arange(items, dtype=np.float32))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    catalogue: Catalogue = make_catalogue(6)
    directory = make_local_silo(tmp_path / "shop-a", catalogue, pl.DataFrame(ROWS))
    finish_job(directory, "aa" * 16, load_yaml(directory / "plan.yaml", Plan), chain(6))
    policy = POLICY.replace("timestamp: timestamp}", "timestamp: timestamp, rating: rating}")
    (directory / "policy.yaml").write_text(policy.replace("    exclude", "    min_rating: 4\n    exclude"))
    signed = load_yaml(directory / "policy.yaml", SiloPolicy)
    (directory / "jobs" / ("aa" * 16) / "policy.json").write_text(signed.model_dump_json())
    return directory


def test_a_list_is_of_what_is_liked_and_without_what_is_seen(shop: Path) -> None:
    """i0003 would bring i0004 to the top if it were scored; ben likes nothing, so popularity is left."""
    found = {user: recommend_alone(shop, None, user, 6) for user in ("ann", "ben", "eve")}
    lists = {user: [row["item_id"] for row in made["items"]] for user, made in found.items()}
    assert lists["ann"] == ["i0001", "i0002", "i0004", "i0005"]
    assert lists["ben"] == ["i0005", "i0004", "i0002", "i0001", "i0000"]
    assert found["ben"]["fallback"] is None
    assert found["eve"]["fallback"] == "unknown-user"
    recommend_all(shop, None, 6, None, shop / "lists.csv")
    written = pl.read_csv(shop / "lists.csv").group_by("user_id").agg("item_id")
    assert dict(written.iter_rows()) == {user: lists[user] for user in ("ann", "ben")}


def test_a_new_item_fits_what_is_liked(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = make_catalogue(20)
    seen = make_interactions([list(range(18))], catalogue)
    liked = make_interactions([[0]], catalogue)
    features = np.zeros((20, 2))
    features[0, 0] = features[18, 0] = 1.0
    features[1:18, 1] = features[19, 1] = 1.0
    monkeypatch.setattr(Catalogue, "features", lambda _: features)
    assert new_item(catalogue, seen, "u0", range(MIN_LIST)) == 19
    assert new_item(catalogue, seen, "u0", range(MIN_LIST), liked=liked) == 18


def test_the_label_desk_scores_what_is_liked(tmp_path: Path) -> None:
    scene = make_serving_scene(tmp_path, port=free_port())
    model = load_label_model(scene.directory(LABEL), JOB)
    had = scene.items_of(LABEL, "anna")
    disliked = model.recommend(had, top=1)[0][0]
    table = scene.directory(LABEL) / "data" / "rows.parquet"
    rows = pl.read_parquet(table)
    bad = pl.DataFrame({"user_id": ["anna"], "item_id": [CATALOGUE.item_ids[disliked]], "rating": [1.0]})
    pl.concat([rows.with_columns(pl.lit(5.0).alias("rating")), bad]).write_parquet(table)
    path = scene.directory(LABEL) / "jobs" / JOB / "policy.json"
    policy = json.loads(path.read_text())
    for dataset in policy["datasets"].values():
        dataset["columns"]["rating"], dataset["min_rating"] = "rating", 4.0
    path.write_text(json.dumps(policy))
    made = asyncio.run(LabelDesk(scene.directory(LABEL), JOB).recommend("anna", 5))
    scored = model.recommend(had, top=6)[1:]
    assert [(row.item_id, row.score) for row in made.rows] == [
        (CATALOGUE.item_ids[item], pytest.approx(score)) for item, score in scored
    ]
