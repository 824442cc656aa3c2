"""Attacks on what a silo makes of its rows: more than one person's worth, or an answer by silence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl

from policies.silo_policy import Columns, Dataset, Source
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean
from silo.data.interactions import SCHEMA, Interactions
from silo.data.sources import read_dataset, read_exclusions
from silo.metrics import contribute_metrics
from silo.models.recommender import Recommender
from silo.rows import Rows

GRID = 8192
SHAPE = cast(Any, SimpleNamespace(grid=GRID))
ITEMS = 40


def catalogue(items: int = ITEMS) -> Catalogue:
    return Catalogue.from_items(CatalogueItem(item_id=f"{number:03d}") for number in range(items))


def rows_of(train: list[tuple[int, int]], held_out: list[tuple[int, int]], num_users: int) -> Rows:
    ids = tuple(f"u{number:04d}" for number in range(num_users))

    def interactions(pairs: list[tuple[int, int]]) -> Interactions:
        users, items = [user for user, _ in pairs], [item for _, item in pairs]
        frame = pl.DataFrame(
            {"user_index": users, "item_index": items, "timestamp": [None] * len(pairs)}, schema=SCHEMA
        )
        return Interactions(ids, frame, catalogue())

    return Rows(interactions(train), interactions(held_out), catalogue(), cast(Any, None))


def tied_model(seed: int) -> Recommender:
    """Items 10 and 11 tie in real arithmetic for everybody; float32 decides, and with it place ten."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(64).astype(np.float32)
    right = np.full((ITEMS, 64), -50, np.float32)
    right[0] = 0
    right[1:10] = np.arange(50, 59, dtype=np.float32)[:, None]
    right[10], right[11] = weights, rng.permutation(weights)
    ones = np.ones((ITEMS, 64), np.float32)
    return Recommender(ones, right, np.zeros(ITEMS, np.float32), np.ones(ITEMS, np.float32))


def test_one_more_person_moves_the_metrics_by_that_persons_vector_only() -> None:
    worst = 0.0
    for seed in range(60):
        model = tied_model(seed)
        for others in (1, 2, 3, 4, 7, 8, 15, 16):
            train = [(user, 0) for user in range(others)]
            held_out = [(user, 11) for user in range(others)]
            without = contribute_metrics(model, rows_of(train, held_out, others), SHAPE)
            added = rows_of([*train, (others, 1)], [*held_out, (others, 2)], others + 1)
            worst = max(worst, float(np.linalg.norm(contribute_metrics(model, added, SHAPE) - without)))
    assert worst <= GRID


def test_a_silo_without_evaluable_users_sends_noise_like_every_other() -> None:
    sums = contribute_metrics(tied_model(0), rows_of([(0, 0)], [], 1), SHAPE)
    assert not sums.any()


def test_one_person_too_many_does_not_silence_the_silo() -> None:
    rows = pl.DataFrame({"user_id": ["a", "b", "c"], "item_id": ["000"] * 3, "timestamp": [1, 2, 3]})
    kept, report = clean(rows, catalogue(), max_interactions_per_user=5, max_users=2)
    assert (kept.num_users, report.users_above_bound) == (3, 1)


def test_a_no_is_honoured_however_the_number_is_written(tmp_path: Path) -> None:
    pl.DataFrame({"user": [7, 8], "item": ["000", "001"]}).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "opt-outs.csv").write_text("user\n7.0\n")
    dataset = Dataset(
        source=Source(parquet="rows.parquet"),
        columns=Columns(user_id="user", item_id="item"),
        max_interactions_per_user=5,
        population="customers",
        max_silos_per_user=1,
        exclude_users="opt-outs.csv",
    )
    rows = read_dataset(dataset, tmp_path, catalogue())
    kept, _ = clean(
        rows,
        catalogue(),
        max_interactions_per_user=5,
        exclude_users=read_exclusions(dataset, tmp_path),
    )
    assert kept.user_ids == ("8",)


def test_one_person_in_two_files_is_one_person(tmp_path: Path) -> None:
    (tmp_path / "january.csv").write_text("user_id,item_id\n7,000\n")
    (tmp_path / "february.csv").write_text("user_id,item_id\n7.0,001\n")
    dataset = Dataset(
        source=Source(csv="*.csv"), max_interactions_per_user=5, population="customers", max_silos_per_user=1
    )
    kept, _ = clean(read_dataset(dataset, tmp_path, catalogue()), catalogue(), max_interactions_per_user=5)
    assert kept.num_users == 1
