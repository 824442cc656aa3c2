"""What a demo may be asked: refusals name the option and what would do, before anything is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from privacy.errors import UsageError
from silo.data.public_sets import PublicSet
from silo.data.synthetic import marketplace
from silo.demo.dataset import NO_ORDER, prepare
from silo.demo.settings import DemoSettings
from silo.demo.staging import training_options

USUAL = DemoSettings(
    data=None, format=None, min_rating=None, num_silos=4, epsilon=4.0, delta=1e-5, colluding_silos=None,
    family="autoencoder", seed=0, num_seeds=1, out=Path("run"),
)  # fmt: skip

SMALL = ("--features", "40", "--hidden", "16", "--places", "10", "--learning-rate", "0.02")


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"family": "item-graph", "rounds": 5}, "--rounds"),
        ({"family": "popularity", "sample_rate": 1.0}, "--sample-rate"),
        ({"family": "item-graph", "noise_placement": "federation"}, "--noise-placement"),
        ({"architecture": "gru"}, "--architecture"),
        ({"family": "sequence", "architecture": "bottleneck"}, "--architecture"),
        ({"family": "language", "record": True}, "--record"),
        ({"rounds": 0}, "--rounds"),
        ({"sample_rate": 0.0}, "--sample-rate"),
        ({"sample_rate": 1.5}, "--sample-rate"),
        ({"local_steps": 0, "noise_placement": "silo"}, "--local-steps"),
        ({"local_steps": 5}, "--local-steps"),
        ({"local_steps": 5, "noise_placement": "federation"}, "--local-steps"),
        ({"noise_placement": "silo", "colluding_silos": 1}, "--colluding-silos"),
        ({"noise_placement": "federation", "colluding_silos": 3}, "--noise-placement"),
        ({"colluding_silos": 4}, "--colluding-silos"),
        ({"record": True, "num_seeds": 2}, "--seeds"),
        ({"canaries": 100}, "--canaries"),
        ({"record": True, "canaries": 15}, "--canaries"),
        ({"record": True, "canaries": 100_001}, "--canaries"),
    ],
)
def test_what_cannot_be_is_refused_by_its_option(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError) as refused:
        replace(USUAL, **changes).check()
    assert refused.value.where == option
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("changes", "colluding", "options"),
    [
        ({}, 1, []),
        ({"num_silos": 2}, 1, []),
        ({"noise_placement": "silo"}, 3, ["--noise-placement", "silo"]),
        (
            {"noise_placement": "silo", "local_steps": 5, "rounds": 12},
            3,
            ["--noise-placement", "silo", "--rounds", "12", "--local-steps", "5"],
        ),
        ({"colluding_silos": 2, "sample_rate": 0.5}, 2, ["--sample-rate", "0.5"]),
        ({"family": "item-graph"}, 1, []),
        ({"family": "sequence"}, 1, [*SMALL, "--rounds", "20"]),
        (
            {"family": "sequence", "architecture": "gru", "rounds": 7},
            1,
            [*SMALL, "--rounds", "7", "--architecture", "gru"],
        ),
        ({"family": "language"}, 1, ["--architecture", "bottleneck", "--rounds", "30"]),
        (
            {"family": "language", "architecture": "gru"},
            1,
            ["--architecture", "gru", "--rounds", "30", "--places", "10", "--learning-rate", "0.02"],
        ),
    ],
)
def test_what_is_asked_reaches_the_plan_and_nothing_else(
    changes: dict[str, Any], colluding: int, options: list[str]
) -> None:
    settings = replace(USUAL, **changes).check()
    assert settings.num_colluding == colluding
    assert training_options(settings) == options


def test_only_sampled_steps_need_renyi_accounts() -> None:
    assert replace(USUAL, sample_rate=0.5).is_sampled
    assert not USUAL.is_sampled
    assert not replace(USUAL, family="item-graph").is_sampled


def test_one_sum_is_always_verified_and_many_now_and_then() -> None:
    assert replace(USUAL, family="item-graph").verify_sums == 1.0
    assert 0 < USUAL.verify_sums < 1


def without_times(source: PublicSet) -> PublicSet:
    return replace(source, rows=source.rows.with_columns(pl.lit(None, pl.Int64).alias("timestamp")))


@pytest.mark.parametrize(
    ("family", "asked", "is_timed", "split"),
    [
        ("sequence", None, True, "last"),
        ("sequence", "random", True, "random"),
        ("sequence", None, False, "random"),
        ("autoencoder", None, True, "random"),
        ("autoencoder", "last", True, "last"),
    ],
)
def test_what_is_held_out_follows_family_and_times(
    family: Any, asked: Any, is_timed: bool, split: str
) -> None:
    source = marketplace(0, 60, 50)
    settings = replace(USUAL, family=family, split=asked)
    data = prepare(settings, source if is_timed else without_times(source), 0)
    assert data.split == split
    held = np.diff(data.held_out.matrix().indptr)
    assert bool(held.max() == 1) is (split == "last")
    assert (NO_ORDER in data.notes) is (family == "sequence" and not is_timed)
