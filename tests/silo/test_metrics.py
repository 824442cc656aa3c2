from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from policies.plans.price import NUM_METRIC_VALUES
from silo.data.interactions import Interactions
from silo.metrics import METRIC_NAMES, contribute_metrics, released_metrics
from silo.models.recommender import Recommender
from silo.rows import Rows
from tests.contracts.family_contract import NUM_ITEMS, make_catalogue, make_interactions, random_histories

GRID = 8192
SHAPE = cast(Any, SimpleNamespace(grid=GRID))


def make_model(seed: int = 0) -> Recommender:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((2, NUM_ITEMS, 8)).astype(np.float32)
    return Recommender(left, right, np.zeros(NUM_ITEMS, np.float32), np.ones(NUM_ITEMS, np.float32))


def make_rows(train: Interactions, held_out: Interactions) -> Rows:
    return Rows(train, held_out, train.catalogue, cast(Any, None))


def halves(seed: int) -> tuple[Interactions, Interactions]:
    histories, catalogue = random_histories(seed), make_catalogue()
    return (
        make_interactions([items[::2] for items in histories], catalogue),
        make_interactions([items[1::2] for items in histories], catalogue),
    )


def test_the_sum_is_that_of_each_persons_own_vector_to_the_last_unit() -> None:
    train, held_out = halves(seed=1)
    together = contribute_metrics(make_model(), make_rows(train, held_out), SHAPE)
    alone = [
        contribute_metrics(make_model(), make_rows(train.select([user]), held_out.select([user])), SHAPE)
        for user in range(train.num_users)
    ]
    np.testing.assert_array_equal(together, np.sum(alone, axis=0))
    norms = np.linalg.norm(alone, axis=1)
    assert norms.max() <= GRID
    assert norms.max() > 0


def test_the_sums_of_all_give_back_the_means() -> None:
    from silo.evaluation import evaluate

    train, held_out = halves(seed=2)
    released = released_metrics(contribute_metrics(make_model(), make_rows(train, held_out), SHAPE), SHAPE)
    expected = evaluate(make_model(), train, held_out)
    assert released == pytest.approx({name: expected[name] for name in METRIC_NAMES}, abs=1e-3)


def test_nobody_to_evaluate_is_zeros() -> None:
    train, _ = halves(seed=3)
    nobody = make_interactions([[] for _ in range(train.num_users)], train.catalogue)
    sums = contribute_metrics(make_model(), make_rows(train, nobody), SHAPE)
    assert sums.tolist() == [0] * NUM_METRIC_VALUES
    assert released_metrics(sums, SHAPE) == {}
