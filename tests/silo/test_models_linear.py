from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch

from policies.plans.models import LinearModel
from policies.plans.price import RoundShape, schedule
from privacy.errors import UsageError
from silo.models.base import Family, get_family
from silo.models.features import attribute_table
from silo.models.linear import Linear
from tests.contracts.architecture_contract import ArchitectureContract, most_of
from tests.contracts.family_contract import (
    NUM_ITEMS,
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


class LinearContract(ArchitectureContract):
    model: ClassVar = {"family": "linear", "features": 4}
    largest: ClassVar = {"features": most_of(LinearModel, "features")}


class TestLinearSgd(LinearContract):
    sections: ClassVar = {"training": TRAINING, "privacy": PRIVACY}

    def test_the_sum_is_the_rounded_sum_of_clipped_autograd_gradients(
        self, family: Family, shape: RoundShape
    ) -> None:
        histories = random_histories(4, num_users=6)
        total = np.zeros(shape.values)
        features = torch.tensor(attribute_table(family.catalogue, 4))
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
            losses.append(family.local_loss(interactions, state))
            sums = family.contribute(interactions, state, round_index, shape)
            state = family.absorb(state, sums, round_index, shape, 4)
        assert all(later < earlier for earlier, later in pairwise(losses))


class TestLinearAdam(LinearContract):
    sections: ClassVar = {
        "training": TRAINING | {"optimizer": "adam", "learning_rate": 0.1},
        "privacy": PRIVACY,
    }


def test_features_are_the_first_attributes_padded() -> None:
    catalogue = make_catalogue()
    table = catalogue.features()
    np.testing.assert_array_equal(attribute_table(catalogue, 2), table[:, :2])
    wide = attribute_table(catalogue, 7)
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
