from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch

from policies.price import RoundShape, schedule
from privacy.errors import UsageError
from silo.models.base import Family, get_family
from silo.models.linear import Linear, public_features
from tests.contracts.family_contract import (
    NUM_ITEMS,
    FamilyContract,
    make_catalogue,
    make_interactions,
    make_plan,
    random_histories,
)

TRAINING = {
    "rounds": 5,
    "expected_batch_size": 120.0,
    "optimizer": "sgd",
    "learning_rate": 1.0,
}
PRIVACY = {"contribution_norm": None, "max_grad_norm": 0.5, "grid": 2048}


class LinearContract(FamilyContract):
    model: ClassVar = {"family": "linear", "features": 4}


class TestLinearSgd(LinearContract):
    sections: ClassVar = {"training": TRAINING, "privacy": PRIVACY}

    def test_the_sum_is_the_rounded_sum_of_clipped_autograd_gradients(
        self, family: Family, shape: RoundShape
    ) -> None:
        histories = random_histories(4, num_users=6)
        total = np.zeros(shape.values)
        features = torch.tensor(public_features(family.catalogue, 4))
        for items in histories:
            layer = torch.nn.Linear(4, NUM_ITEMS, dtype=torch.float64)
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
            loss = -torch.log_softmax(layer(features[items].mean(0)), 0)[items].mean()
            parts = torch.autograd.grad(loss, list(layer.parameters()))
            gradient = torch.cat([part.ravel() for part in parts]).numpy()
            total += gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
        found = self.contribution(family, shape, histories)
        np.testing.assert_allclose(found, total * 2048 / 0.5, atol=0.51)

    def test_rounds_learn_what_users_like(self, family: Family, shape: RoundShape) -> None:
        state = family.initial_state()
        interactions = make_interactions(random_histories(0, num_users=200), family.catalogue)
        losses = []
        for round_index in range(5):
            histories = interactions.matrix()
            scores = family.finish(state).scores(histories).astype(np.float64)
            log_odds = scores - np.log(np.exp(scores).sum(1, keepdims=True))
            lengths = np.diff(histories.indptr)
            losses.append(-(histories.multiply(log_odds).sum(1).A1 / lengths).mean())
            sums = family.contribute(interactions, state, round_index, shape)
            state = family.absorb(state, sums, round_index, shape)
        assert all(later < earlier for earlier, later in pairwise(losses))

    def test_one_step_is_the_sum_over_the_public_batch_size(self, family: Family, shape: RoundShape) -> None:
        sums = np.arange(shape.values, dtype=np.int64)
        state = family.absorb(family.initial_state(), sums, 0, shape)
        moved = -np.concatenate([state["weight"].ravel(), state["bias"]])
        np.testing.assert_allclose(moved, sums * 0.5 / 2048 / 120.0)


class TestLinearAdam(LinearContract):
    sections: ClassVar = {
        "training": TRAINING | {"optimizer": "adam", "learning_rate": 0.1},
        "privacy": PRIVACY,
    }

    def test_steps_equal_torchs(self, family: Family, shape: RoundShape) -> None:
        rng = np.random.default_rng(0)
        weights = torch.zeros(shape.values, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([weights], lr=0.1)
        state = family.initial_state()
        for round_index in range(4):
            sums = rng.integers(-5000, 5000, shape.values)
            weights.grad = torch.tensor(sums * 0.5 / 2048 / 120.0)
            optimizer.step()
            state = family.absorb(state, sums, round_index, shape)
        found = np.concatenate([state["weight"].ravel(), state["bias"]])
        np.testing.assert_allclose(found, weights.detach().numpy(), rtol=1e-9)


def test_features_are_the_first_attributes_padded() -> None:
    catalogue = make_catalogue()
    table = catalogue.features()
    np.testing.assert_array_equal(public_features(catalogue, 2), table[:, :2])
    wide = public_features(catalogue, 7)
    np.testing.assert_array_equal(wide[:, :5], table)
    assert not wide[:, 5:].any()


def test_sampled_rounds_draw_fresh_users() -> None:
    plan = make_plan(
        make_catalogue(),
        {"family": "linear", "features": 4},
        training=TRAINING | {"sample_rate": 0.5},
        privacy=PRIVACY | {"filter": "renyi", "orders": (2.0, 4.0, 8.0)},
    )
    family = get_family(plan)(plan, make_catalogue())
    shape = schedule(plan)[0]
    interactions = make_interactions(random_histories(0, num_users=100), family.catalogue)
    draws = {family.contribute(interactions, family.initial_state(), 0, shape).tobytes() for _ in range(3)}
    assert len(draws) == 3


def test_a_plan_of_another_family_is_refused() -> None:
    catalogue = make_catalogue()
    with pytest.raises(UsageError, match="linear"):
        Linear(make_plan(catalogue, {"family": "popularity"}), catalogue)
