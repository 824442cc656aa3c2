"""A feature silo's encoder: per-user gradients, noised training, numbers that depend on one row."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from policies.plans.plan import Plan
from policies.plans.vertical.encoder_drafting import EncoderDraft
from policies.plans.vertical.encoder_price import encoder_step, encoder_training_event
from privacy.dpsgd import PerUserGradientError, PerUserGradients
from privacy.embedding import GRID
from privacy.errors import UsageError
from privacy.noise import NoisedIntegers, NoiseShare
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.vertical.columns import column_map, unit_rows
from silo.vertical.encoder import training as module
from silo.vertical.encoder.encoding import curved, encoded, numbers_of
from silo.vertical.encoder.training import (
    EncoderArchitecture,
    EncoderError,
    EncoderFamily,
    train_encoder,
)
from tests.policies.plans.vertical.test_encoder_plan import make_encoder

SILO = "content"
NUM_ITEMS, NUM_PEOPLE = 24, 90
COLUMNS = sp.identity(NUM_ITEMS, format="csr")
AVERAGE = np.full(NUM_ITEMS, NUM_ITEMS**-0.5)


@functools.cache
def plan_of(**encoder: Any) -> Plan:
    wanted = {"dimensions": 3, "steps": 30, "expected_batch_size": float(NUM_PEOPLE), "learning_rate": 0.02}
    return make_encoder(EncoderDraft(**(wanted | encoder)), target_epsilon=90.0)


@functools.cache
def catalogue() -> Catalogue:
    return Catalogue.from_items(CatalogueItem(item_id=f"v{n:03d}") for n in range(NUM_ITEMS))


def people(num_people: int = NUM_PEOPLE, seed: int = 0) -> sp.csr_matrix:
    """Two tastes: items of the first or of the second half."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((num_people, NUM_ITEMS))
    for person in range(num_people):
        half = person % 2 * (NUM_ITEMS // 2)
        rows[person, half + rng.choice(NUM_ITEMS // 2, 5, replace=False)] = 1.0
    return sp.csr_matrix(rows)


class Silent(NoiseShare):
    """Tests of what is learned take the noise away; no agent can."""

    def add_to(self, integers: Any, *, unsafe_source: Any = None) -> NoisedIntegers:
        return NoisedIntegers(super().add_to(np.zeros_like(integers)).values * 0 + integers, self._event)


def test_numbers_tell_tastes_apart_and_nothing_of_what_all_have_in_common(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NoiseShare", Silent)
    made = train_encoder(plan_of(), SILO, people(), catalogue(), COLUMNS)
    numbers = numbers_of(people(200, seed=1), COLUMNS, made.weight)
    first, second = numbers[::2], numbers[1::2]
    assert (first @ first.mean(axis=0) > first @ second.mean(axis=0)).mean() > 0.95
    assert np.linalg.norm(numbers.mean(axis=0)) < 0.4


def test_the_training_reports_the_event_that_was_reserved() -> None:
    made = train_encoder(plan_of(), SILO, people(), catalogue(), COLUMNS)
    assert made.event == encoder_training_event(plan_of())


def test_every_step_carries_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, drawn = plan_of(steps=5), []

    class Watched(NoiseShare):
        def add_to(self, integers: Any, *, unsafe_source: Any = None) -> NoisedIntegers:
            noised = super().add_to(integers)
            drawn.append(noised.values - integers)
            return noised

    monkeypatch.setattr(module, "NoiseShare", Watched)
    train_encoder(plan, SILO, people(), catalogue(), COLUMNS)
    step = encoder_step(plan)
    assert len({noise.tobytes() for noise in drawn}) == 5
    assert np.std(np.concatenate(drawn)) == pytest.approx(step.noise_std, rel=0.15)
    assert step.noise_std == pytest.approx(step.event.noise_multiplier * step.sensitivity)


def test_without_anybody_the_training_is_noise_and_still_costs() -> None:
    nobody = sp.csr_matrix((0, NUM_ITEMS))
    made = train_encoder(plan_of(), SILO, nobody, catalogue(), COLUMNS)
    assert made.event == encoder_training_event(plan_of())
    assert made.weight.any()


def test_one_person_moves_the_first_step_by_at_most_its_sensitivity() -> None:
    plan, step = plan_of(), encoder_step(plan_of())
    sums = [module._sum_of_rows(plan, rows, COLUMNS, step.grid) for rows in (people(), people()[1:])]
    moved = np.linalg.norm(sums[0] - sums[1])
    assert 0.99 * step.grid < moved <= step.sensitivity


def test_one_person_moves_a_step_by_at_most_its_sensitivity() -> None:
    plan = plan_of(input_dropout=0.0)
    family, step = EncoderFamily(plan, catalogue(), COLUMNS, AVERAGE), encoder_step(plan)
    state = family.initial_state()
    sums = [
        family.contribute(module.as_interactions(rows, catalogue()), state, 0, step)
        for rows in (people(), people()[: NUM_PEOPLE - 1])
    ]
    moved = np.linalg.norm(sums[0] - sums[1])
    assert 0.8 * step.grid < moved <= step.sensitivity


def test_gradients_are_per_user_and_a_loss_over_the_batch_is_refused() -> None:
    architecture = EncoderArchitecture(plan_of(), catalogue(), COLUMNS, AVERAGE)
    batch = architecture.batch(people(3), people(3))

    def of(loss: Any) -> None:
        network = architecture.module()
        PerUserGradients(network, loss, 1.0, mode="hooks").start_up_self_test(*batch)

    of(architecture.loss_per_user)
    with pytest.raises(PerUserGradientError):
        of(lambda model, *b: architecture.loss_per_user(model, *b) / len(b[0]))


def test_whoever_has_no_target_has_no_gradient() -> None:
    architecture = EncoderArchitecture(plan_of(), catalogue(), COLUMNS, AVERAGE)
    inputs, targets = people(2).tolil(), people(2).tolil()
    targets[1] = 0
    network = architecture.module()
    losses = architecture.loss_per_user(network, *architecture.batch(inputs.tocsr(), targets.tocsr()))
    gradients = torch.autograd.grad(losses[1], list(network.parameters()))
    assert losses[1].item() == 0.0
    assert not any(gradient.any() for gradient in gradients)


def test_weights_start_alike_everywhere_and_fit_the_module() -> None:
    architecture = EncoderArchitecture(plan_of(), catalogue(), COLUMNS, AVERAGE)
    weights = architecture.initial_weights()
    shapes = {name: tuple(p.shape) for name, p in architecture.module().named_parameters()}
    assert {name: values.shape for name, values in weights.items()} == shapes
    again = EncoderArchitecture(plan_of(), catalogue(), COLUMNS, AVERAGE).initial_weights()
    assert all((weights[name] == again[name]).all() for name in weights)


@pytest.mark.parametrize("num_columns", [1, 24, 1024])
def test_a_persons_numbers_are_the_same_to_the_last_bit_whoever_else_there_is(num_columns: int) -> None:
    rng = np.random.default_rng(3)
    rows = rng.random((257, num_columns)) * (rng.random((257, num_columns)) < 0.3)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    weight = rng.normal(size=(num_columns, 7))
    together, numbers = curved(rows, weight), encoded(rows, weight)
    for start, end in ((0, 1), (3, 4), (100, 257), (13, 29)):
        assert (curved(rows[start:end], weight) == together[start:end]).all()
        assert (encoded(rows[start:end], weight) == numbers[start:end]).all()


def test_rows_before_the_encoder_are_the_same_to_the_last_bit_whoever_else_there_is() -> None:
    rows = people(61)
    folded = column_map(catalogue().item_ids, is_public_list=False)
    together = unit_rows(rows, folded)
    for start, end in ((0, 1), (17, 42), (60, 61)):
        assert (unit_rows(rows[start:end], folded) == together[start:end]).all()


def test_numbers_have_norm_at_most_one_and_nobody_has_none() -> None:
    made = train_encoder(plan_of(steps=2), SILO, people(), catalogue(), COLUMNS)
    rows = people(40).tolil()
    rows[7] = 0
    numbers = numbers_of(rows.tocsr(), COLUMNS, made.weight)
    assert not numbers[7].any()
    exact = np.trunc(numbers * GRID).astype(np.int64)
    assert np.square(exact).sum(axis=1).max() <= GRID**2


def test_more_columns_than_the_plan_pays_for_are_refused() -> None:
    items = Catalogue.from_items(CatalogueItem(item_id=f"v{n:05d}") for n in range(2049))
    wide = sp.identity(2049, format="csr")
    with pytest.raises(EncoderError, match="pays for"):
        train_encoder(plan_of(), SILO, sp.csr_matrix((3, 2049)), items, wide)


def test_an_encoder_ranks_nothing() -> None:
    family = EncoderFamily(plan_of(), catalogue(), COLUMNS, AVERAGE)
    with pytest.raises(UsageError, match="ranks nothing"):
        family.finish(family.initial_state())
