"""What a review found in the training of networks over histories: each test failed before its hole closed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies.plans.plan import Plan
from policies.plans.price import schedule
from silo.models.base import State, get_family
from silo.models.trainer import MAX_ROUNDING, CheckpointError, GradientFamily, TrainingDivergedError
from tests.contracts.family_contract import NUM_ITEMS, make_catalogue, make_interactions, make_plan
from tests.silo.test_models_sequence import MODEL, PRIVACY, TRAINING

torch.set_num_threads(1)

DEEP: dict[str, Any] = {"architecture": "gru", "layers": 4, "hidden": 8, "places": NUM_ITEMS, "bias": "none"}


def family_of(start: State | None = None, **model: Any) -> GradientFamily:
    catalogue = make_catalogue()
    plan: Plan = make_plan(catalogue, MODEL | DEEP | model, training=TRAINING, privacy=PRIVACY)
    family = get_family(plan)(plan, catalogue, start=start)
    assert isinstance(family, GradientFamily)
    return family


def far_from_zero(family: GradientFamily, weight: float) -> State:
    """The initial state with weights as large as a training may make them."""
    random, state = np.random.default_rng(0), family.initial_state()
    names = family.make_architecture(None).initial_weights()
    return state | {name: random.uniform(-weight, weight, state[name].shape) for name in names}


def test_a_training_that_loses_digits_is_stopped_by_public_weights_alone() -> None:
    """The check of one person a step would trip for those with long histories, in view of everybody."""
    family = family_of()
    shape = schedule(family.plan)[0]
    still = np.zeros(shape.values, dtype=np.int64)
    family.absorb(family.initial_state(), still, 0, shape, 4)
    with pytest.raises(TrainingDivergedError, match="digits"):
        family.absorb(far_from_zero(family, 20.0), still, 0, shape, 4)


def test_a_checkpoint_at_which_digits_are_lost_starts_no_training() -> None:
    family = family_of()
    start = family.checkpoint(far_from_zero(family, 20.0))
    with pytest.raises(CheckpointError, match="digits"):
        family_of(start=start).self_test()
    family_of(start=family.checkpoint(family.initial_state())).self_test()


@pytest.mark.parametrize("architecture", ["transformer", "masked", "gru", "lstm", "cnn"])
def test_usual_weights_are_far_from_losing_digits(architecture: str) -> None:
    family = family_of(architecture=architecture)
    session = family._session_of(far_from_zero(family, 0.5))
    session.self_test()
    assert session.rounding() < MAX_ROUNDING / 10


def test_how_many_people_are_computed_at_once_follows_from_nobodys_rows() -> None:
    cut = []
    for first in ([0], list(range(NUM_ITEMS))):
        family = family_of()
        rows = make_interactions([first, *([index, index + 1] for index in range(8))], family.catalogue)
        state = family.initial_state()
        family.contribute(rows, state, 0, schedule(family.plan)[0])
        cut.append(dict(family._session_of(state)._gradients._users_at_once))
    assert cut[0] == cut[1]
