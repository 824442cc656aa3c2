"""The label silo's network on its own items and released numbers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from privacy.dpsgd import PerUserGradients
from silo.vertical.encoder import top_model
from silo.vertical.encoder.top_model import (
    TopModel,
    TopSettings,
    standardised,
    train_top_model,
    trained_tables,
)
from silo.vertical.joint.model import ItemSide, JointModel, Weights
from silo.vertical.joint.selection import LabelUsers, random_halves

PEOPLE, ITEMS = 160, 20
SETTINGS = TopSettings(hidden=8, epochs=40, batch_size=40, learning_rate=0.02)


@functools.cache
def world() -> tuple[LabelUsers, JointModel, np.ndarray]:
    """Two tastes that a person's one training item says little of, and a partner's numbers much."""
    rng = np.random.default_rng(2)
    tastes = np.arange(PEOPLE) % 2
    rows, held_out = np.zeros((PEOPLE, ITEMS)), np.zeros((PEOPLE, ITEMS))
    for person, taste in enumerate(tastes):
        rows[person, rng.integers(ITEMS)] = 1.0
        wanted = taste * ITEMS // 2 + rng.choice(ITEMS // 2, 5, replace=False)
        held_out[person, wanted] = 1.0
        rows[person, wanted[:2]] = 1.0
    held_out[rows > 0] = 0.0
    users = LabelUsers(sp.csr_matrix(rows), sp.csr_matrix(held_out), random_halves(PEOPLE, 0))
    alone = JointModel(ItemSide(users.rows, 30.0), (), Weights(30.0, 0.5))
    numbers = np.stack([np.where(tastes == 1, 1.0, -1.0), rng.normal(size=PEOPLE)], axis=1)
    return users, alone, numbers + 0.3 * rng.normal(size=(PEOPLE, 2))


def metric(model: TopModel, numbers: np.ndarray) -> float:
    return top_model._metric(world()[0], model, numbers)


def test_numbers_that_say_much_are_used() -> None:
    users, alone, numbers = world()
    model = train_top_model(users, alone, numbers, SETTINGS)
    assert model.mixing > 0
    assert metric(model, numbers) > 1.05 * metric(TopModel(alone, model.tables), numbers)
    assert metric(model, numbers) > 1.05 * metric(model, -numbers)


def test_numbers_that_say_nothing_never_lose_to_the_label_silo_alone_where_it_is_chosen() -> None:
    users, alone, numbers = world()
    noise = np.random.default_rng(1).normal(size=numbers.shape)
    model = train_top_model(users, alone, noise, SETTINGS)
    assert metric(model, noise) >= metric(TopModel(alone, model.tables), noise)


def test_without_mixing_the_ranking_is_the_label_silos_own() -> None:
    users, alone, numbers = world()
    model = TopModel(alone, trained_tables(users.rows, numbers, TopSettings(hidden=2, epochs=1)))
    own, found = alone.scores(users.rows), model.scores(users.rows, numbers)
    assert (np.argsort(own, axis=1, kind="stable") == np.argsort(found, axis=1, kind="stable")).all()


def test_the_tables_score_as_the_network_does() -> None:
    users, alone, numbers = world()
    settings = TopSettings(hidden=4, epochs=0)
    tables = trained_tables(users.rows, numbers, settings)
    network = top_model._module(users.rows, 2, settings, np.random.default_rng(settings.seed))
    with torch.no_grad():
        expected = network(top_model._inputs(users.rows, numbers)).numpy()
    found = TopModel(alone, tables, mixing=1.0).scores(users.rows, numbers)
    np.testing.assert_allclose(found, standardised(expected), rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_single_people() -> None:
    users, _, numbers = world()
    network = top_model._module(users.rows, 2, SETTINGS, np.random.default_rng(0))
    batch = (top_model._inputs(users.rows[:3], numbers[:3]), top_model._targets(users.held_out[:3]))
    PerUserGradients(network, top_model._loss_per_user, 1.0).start_up_self_test(*batch)


def test_constant_scores_stay_finite() -> None:
    assert (standardised(np.full((2, 3), 7.0)) == 0).all()


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_any_size_of_batch_trains(batch_size: int) -> None:
    users, _, numbers = world()
    few = users.rows[:6]
    tables = trained_tables(few, numbers[:6], TopSettings(hidden=2, epochs=1, batch_size=batch_size))
    assert all(np.isfinite(values).all() for values in tables.values())
