"""Ratings: who is measured on what, and figures by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import cli
from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from silo.data.public_sets import load_public_set
from silo.data.ratings import Ratings, liked_from, load_ratings
from silo.local.rating_metrics import auc_within_people, best_threshold
from silo.local.ratings import NeighbourRatings, RatingBaseline
from silo.models.recommender import Recommender
from silo.rows import load_rows
from tests.support.local_silo import POLICY, finish_job, make_local_silo
from tests.support.small_set import write_set


def ratings(*rows: tuple[str, int, float]) -> Ratings:
    users, items, values = zip(*rows, strict=True)
    return Ratings(np.array(users), np.array(items, dtype=np.int64), np.array(values, dtype=np.float64))


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tastes; what is of a person's own taste is rated 4 or 5, all else 1 to 3."""
    root = tmp_path_factory.mktemp("ratings")
    public = load_public_set(write_set(root / "set"))
    rng = np.random.default_rng(8)
    number = pl.col("item_id").str.slice(5).cast(pl.Int64)
    person = public.rows["user_id"].unique(maintain_order=True)
    taste_of = dict(zip(person, rng.integers(0, 4, len(person)), strict=True))
    is_own = public.rows.select((number % 4) == pl.col("user_id").replace_strict(taste_of)).to_series()
    stars = np.where(is_own, rng.integers(4, 6, len(is_own)), rng.integers(1, 4, len(is_own)))
    rows = public.rows.with_columns(pl.Series("rating", stars.astype(np.float64)))
    directory = make_local_silo(root / "shop-a", public.catalogue, rows, holdout="random")
    policy = POLICY.replace("timestamp: timestamp}", "timestamp: timestamp, rating: rating}")
    policy = policy.replace("    exclude_users", "    min_rating: 4\n    exclude_users")
    (directory / "policy.yaml").write_text(policy)
    plan = load_yaml(directory / "plan.yaml", Plan)
    taste = np.arange(len(public.catalogue)) % 4
    same = (taste[:, None] == taste[None, :]).astype(np.float32)
    zeros = np.zeros(len(taste), np.float32)
    finish_job(directory, "aa" * 16, plan, Recommender(same, None, zeros, zeros))
    policy_json = load_yaml(directory / "policy.yaml", SiloPolicy).model_dump_json()
    (directory / "jobs" / ("aa" * 16) / "policy.json").write_text(policy_json)
    return directory


def values(directory: Path, *words: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli.app, [*words, "--dir", str(directory), "--json", "-"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_what_is_disliked_is_no_interaction_and_no_model_is_measured_on_what_it_learnt(silo: Path) -> None:
    plan = load_yaml(silo / "plan.yaml", Plan)
    dataset = load_yaml(silo / "policy.yaml", SiloPolicy).datasets["purchases"]
    rows = load_rows(silo, plan, dataset)
    rated = load_ratings(silo, plan, dataset, rows)
    assert rated is not None
    assert rated.liked_from == 4
    assert rows.report.low_ratings > 500
    users, items = rows.train.frame["user_index"], rows.train.frame["item_index"]
    learnt = {(rows.train.user_ids[user], item) for user, item in zip(users, items, strict=True)}
    held = set(zip(rated.held_out.user_ids.tolist(), rated.held_out.items.tolist(), strict=True))
    assert held
    assert not learnt & held
    disliked = (rated.held_out.values < 4).mean()
    assert 0.1 < disliked < 0.9
    assert len(rated.train) + len(rated.held_out) == rows.report.rows


def test_what_is_liked_may_begin_at_zero(silo: Path) -> None:
    plan = load_yaml(silo / "plan.yaml", Plan)
    dataset = load_yaml(silo / "policy.yaml", SiloPolicy).datasets["purchases"]
    everything = dataset.model_copy(update={"min_rating": 0.0})
    rated = load_ratings(silo, plan, everything, load_rows(silo, plan, everything))
    assert rated is not None
    assert rated.liked_from == 0.0


def test_a_model_that_knows_tastes_tells_likes_from_dislikes(silo: Path) -> None:
    found = values(silo, "evaluate")
    model, facts = found["ratings"]["model"], found["ratings"]
    assert model["auc"] > 0.8
    assert model["accuracy"] > facts["majority"]
    assert model["rmse"] < facts["predictors"]["ratings:baseline"]["rmse"]


def test_compare_shows_ratings_of_every_model(silo: Path) -> None:
    values(silo, "fit", "--local")
    found = values(silo, "compare")
    assert {"ratings:baseline", "ratings:neighbours"} == found["ratings"]["predictors"].keys()
    assert all(row["ratings"]["rmse"] > 0 for row in (*found["models"], found["blend"]))
    shown = CliRunner().invoke(cli.app, ["compare", "--dir", str(silo)]).output
    assert "liked: rated 4 or better" in shown


def test_baseline_by_hand() -> None:
    baseline = RatingBaseline.fit(ratings(("a", 0, 5.0), ("b", 0, 3.0), ("a", 1, 1.0)), 3)
    assert baseline.mean == 3.0
    np.testing.assert_allclose(baseline.of_items, [2 / 27, -2 / 26, 0.0])
    left_over = (5 - 3 - 2 / 27) + (1 - 3 + 2 / 26)
    assert baseline.of_users["a"] == pytest.approx(left_over / 12)
    assert baseline.predict(ratings(("nobody", 2, 0.0)))[0] == 3.0


def test_a_liked_neighbour_lifts_a_prediction() -> None:
    train = ratings(("a", 0, 5.0), ("b", 0, 1.0), ("c", 2, 3.0))
    baseline = RatingBaseline.fit(train, 3)
    similarities = sp.csr_matrix(np.array([[0, 1.0, 0], [1.0, 0, 0], [0, 0, 0]]))
    asked = ratings(("a", 1, 0.0), ("b", 1, 0.0), ("c", 1, 0.0))
    moved = NeighbourRatings(baseline, similarities, train).predict(asked) - baseline.predict(asked)
    assert moved[0] > 0.5
    assert moved[1] < -0.5
    assert moved[2] == 0.0


def test_auc_is_within_people_and_ties_count_half() -> None:
    users = np.array(["a", "a", "a", "b", "b", "c"])
    scores = np.array([3.0, 1.0, 2.0, 9.0, 9.0, 5.0])
    liked = np.array([True, False, True, True, False, True])
    assert auc_within_people(users, scores, liked) == pytest.approx((1.0 + 0.5) / 2)
    assert auc_within_people(users[5:], scores[5:], liked[5:]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_no_threshold_is_right_more_often(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], dtype=np.float64)
    likes = np.array([like for _, like in pairs])
    chosen = ((scores >= best_threshold(scores, likes)) == likes).mean()
    assert chosen == max(((scores >= at) == likes).mean() for at in (-np.inf, *range(6), np.inf))


def test_liked_begins_three_quarters_up_the_scale() -> None:
    assert liked_from(np.array([1.0, 5.0])) == 4.0
    assert liked_from(np.array([0.5, 5.0])) == 4.0
    assert liked_from(np.array([0.0, 10.0])) == 7.5
