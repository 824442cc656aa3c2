"""Silos that train fewer columns of every B: exact, as private as all others, reading the whole model."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("transformers", reason="needs the extra language")

from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from policies.validation import validate_values
from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles
from silo.models.adapted.family import AdaptedLanguage
from silo.models.adapted.network import AdaptedNetwork, adapters_of
from silo.models.base import Integers, State
from silo.tasks import add_noise
from tests.contracts.family_contract import SILOS, make_catalogue, make_interactions, random_histories
from tests.silo.test_models_adapted_language import DIMENSIONS, FFA, adaptable
from tests.silo.test_models_language import language_plan
from tests.support.tiny_encoder import make_tiny_encoder

RANK = 3
ADAPTER = FFA | {"rank": RANK, "columns": {"east": 1, "west": 2}}
OF_SILO = {"north": RANK, "east": 1, "south": RANK, "west": 2}
TRAINERS = np.array([4, 3, 2])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    place = tmp_path_factory.mktemp("encoder")
    return TextEncoder(EncoderFiles.check(make_tiny_encoder(place, layers=3, spread=0.4)))


@pytest.fixture
def items(encoder: TextEncoder) -> Catalogue:
    return adaptable(make_catalogue(), encoder)


def plan_of(items: Catalogue, adapter: dict[str, Any] = ADAPTER) -> Plan:
    """Plain SGD: its step shows the divisor, which Adam's own scale hides."""
    model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5, "encoder_adapter": adapter}
    document = language_plan(items, model).model_dump(mode="json", exclude_unset=True)
    document["training"] |= {"optimizer": "sgd", "learning_rate": 0.5}
    document["privacy"] |= {"clipping": "flat"}
    document["training"].pop("second_moment_decay", None)
    return validate_values(document, Plan, "plan")


def family_of(items: Catalogue, silo: str | None, plan: Plan | None = None) -> AdaptedLanguage:
    return AdaptedLanguage(plan or plan_of(items), items, silo=silo)


def rows_of(items: Catalogue, silo: str) -> Interactions:
    return make_interactions(random_histories(SILOS.index(silo), num_users=7), items)


def moved_state(family: AdaptedLanguage) -> State:
    """Adapters that are not zero in any column."""
    rng = np.random.default_rng(2)
    return {
        name: values + 0.1 * rng.normal(size=values.shape) for name, values in family.initial_state().items()
    }


def later_columns(family: AdaptedLanguage, columns: int) -> NDArray[np.bool_]:
    """Which values of a flat vector stand in columns that are not trained."""
    parts = [
        np.broadcast_to(
            np.arange(values.shape[-1]) >= columns if name in adapters_of(family.initial_state()) else False,
            values.shape,
        ).ravel()
        for name, values in family.initial_state().items()
    ]
    return np.concatenate(parts)


def in_the_clear(items: Catalogue, silo: str, state: State, shape: RoundShape) -> Integers:
    """A silo's sum by autograd over the whole network, person by person: cut off, clipped, added, rounded."""
    whole = family_of(items, None, plan_of(items, ADAPTER | {"columns": None}))
    architecture = whole.make_architecture(None)
    network = architecture.module()
    architecture.set_weights(network, state)
    is_left_out = later_columns(whole, OF_SILO[silo])
    histories, total = rows_of(items, silo).histories(), np.zeros(shape.values)
    for user in range(histories.shape[0]):
        one = histories[user : user + 1]
        loss = architecture.loss_per_user(network, *architecture.batch(one, one)).sum()
        found = torch.autograd.grad(loss, list(network.parameters()))
        gradient = torch.cat([part.flatten() for part in found]).numpy().copy()
        gradient[is_left_out] = 0.0
        total += gradient * min(1.0, whole.max_grad_norm / np.linalg.norm(gradient))
    return np.rint(total * shape.grid / whole.max_grad_norm).astype(np.int64)


def test_the_federated_step_is_the_one_in_the_clear_with_a_divisor_for_each_column(items: Catalogue) -> None:
    plan = plan_of(items)
    shape = schedule(plan)[0]
    families = {silo: family_of(items, silo) for silo in SILOS}
    state = moved_state(families["north"])
    sums = sum(family.contribute(rows_of(items, silo), state, 0, shape) for silo, family in families.items())
    reference = sum(in_the_clear(items, silo, state, shape) for silo in SILOS)
    np.testing.assert_array_equal(sums, reference)
    states = [family.absorb(state, sums, 0, shape, len(SILOS)) for family in families.values()]
    start = 0
    for name, before in state.items():
        gradient = reference[start : start + prod(before.shape)].reshape(before.shape) / shape.grid
        start += prod(before.shape)
        people = plan.training.expected_batch_size * (
            TRAINERS / len(SILOS) if name in adapters_of(state) else np.ones(before.shape[-1])
        )
        step = plan.training.learning_rate * plan.privacy.max_grad_norm * gradient / people
        np.testing.assert_allclose(states[0][name], before - step, rtol=0, atol=1e-15)
        for after in states:
            np.testing.assert_array_equal(after[name], states[0][name])


@pytest.mark.parametrize("silo", ["east", "west"])
def test_one_person_moves_a_sum_by_the_norm_and_no_column_that_is_left_out(
    items: Catalogue, silo: str
) -> None:
    """All norms are those of what is trained: a clip before the cut would leave shorter rows."""
    family, plan = family_of(items, silo), plan_of(items)
    shape, state = schedule(plan)[0], moved_state(family)
    small = plan.privacy.max_grad_norm / 100
    tight = validate_values(
        plan.model_dump(mode="json", exclude_unset=True)
        | {"privacy": plan.privacy.model_dump(mode="json", exclude_unset=True) | {"max_grad_norm": small}},
        Plan,
        "plan",
    )
    clipped = AdaptedLanguage(tight, items, silo=silo)
    rows = clipped.contribute_each(rows_of(items, silo), state, 0, shape).toarray()
    assert not rows[:, later_columns(family, OF_SILO[silo])].any()
    assert rows[:, ~later_columns(family, OF_SILO[silo])].any(axis=0).mean() > 0.9
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), shape.grid, rtol=1e-6)
    histories = random_histories(3, num_users=5)
    everybody = clipped.contribute(make_interactions(histories, items), state, 0, shape)
    for user in range(len(histories)):
        rest = clipped.contribute(
            make_interactions(histories[:user] + histories[user + 1 :], items), state, 0, shape
        )
        assert np.linalg.norm((everybody - rest).astype(float)) <= shape.sensitivity / 2


def noise_outside(values: Integers, signal: Integers, is_left_out: NDArray[np.bool_]) -> float:
    """Root mean square of what a contribution adds in columns that its silo does not train."""
    return float(np.sqrt(np.mean((values - signal)[is_left_out].astype(float) ** 2)))


def test_the_noise_of_a_silo_falls_on_columns_that_it_leaves_to_others(items: Catalogue) -> None:
    """The whole share; one that spares what it does not train would leave the others' with too little."""
    family, shape = family_of(items, "east"), schedule(plan_of(items))[0]
    signal = family.contribute(rows_of(items, "east"), moved_state(family), 0, shape)
    is_left_out = later_columns(family, OF_SILO["east"])
    assert not signal[is_left_out].any()
    noised = add_noise(signal, shape, len(SILOS)).values
    whole = shape.share_std_among(len(SILOS))
    # 128 values: the root mean square is within a quarter of its expectation but for one case in 10^4.
    assert noise_outside(noised, signal, is_left_out) == pytest.approx(whole, rel=0.25)
    sparing = np.where(is_left_out, signal, noised)
    assert noise_outside(sparing, signal, is_left_out) != pytest.approx(whole, rel=0.25)


def test_every_silo_reads_with_all_columns(items: Catalogue) -> None:
    whole, few = (family_of(items, silo) for silo in ("north", "east"))
    state = moved_state(whole)
    losses = [family._session_of(state).losses(rows_of(items, "east").histories()) for family in (whole, few)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)
    cut = {
        name: np.where(np.arange(values.shape[-1]) < 1, values, 0.0) if name in adapters_of(state) else values
        for name, values in state.items()
    }
    other = few._session_of(cut).losses(rows_of(items, "east").histories())
    assert np.abs(other - losses[1]).max() > 1e-3
    few.finish(state)


def test_a_silo_holds_no_parameter_of_a_column_that_it_leaves_out(items: Catalogue) -> None:
    network = family_of(items, "east").make_architecture(None).module()
    assert isinstance(network, AdaptedNetwork)
    assert {weight.shape[1] for weight in network.adapted.parameters()} == {1}
    assert len(list(network.parameters())) == 4 + 3


def test_a_local_step_stays_where_a_silo_trains_nothing(items: Catalogue) -> None:
    """Its noise falls there and is in its sum; its own walk does not follow it."""
    document = plan_of(items).model_dump(mode="json", exclude_unset=True)
    document["training"] |= {"local_steps": 2, "local_learning_rate": 0.5}
    document["privacy"] |= {"noise_placement": "silo", "colluding_silos": 3}
    plan = validate_values(document, Plan, "plan")
    family, shape = family_of(items, "west", plan), schedule(plan)[0]
    state = moved_state(family)
    after = family.step_locally(state, np.full(shape.values, shape.grid), shape)
    for name, before in state.items():
        moved = (after[name] != before).reshape(-1, before.shape[-1]).all(axis=0)
        expected = [True, True, False] if name in adapters_of(state) else [True] * before.shape[-1]
        assert moved.tolist() == expected


@pytest.mark.parametrize("silo", [None, "stranger"])
def test_rows_of_a_silo_that_is_not_named_are_not_summed(items: Catalogue, silo: str | None) -> None:
    family, shape = family_of(items, silo), schedule(plan_of(items))[0]
    state, rows = family.initial_state(), rows_of(items, "east")
    for refused in (
        lambda: family.contribute(rows, state, 0, shape),
        lambda: family.contribute_each(rows, state, 0, shape),
        lambda: family.step_locally(state, np.zeros(shape.values, dtype=np.int64), shape),
    ):
        with pytest.raises(UsageError, match="is not in the plan"):
            refused()
    sums = np.full(shape.values, 3, dtype=np.int64)
    named = family_of(items, "north").absorb(state, sums, 0, shape, len(SILOS))
    for name, values in family.absorb(state, sums, 0, shape, len(SILOS)).items():
        np.testing.assert_array_equal(values, named[name])


def test_weights_belong_to_the_same_space_whoever_trained_which_columns(
    items: Catalogue, tmp_path: Path
) -> None:
    whole = family_of(items, None, plan_of(items, {k: v for k, v in ADAPTER.items() if k != "columns"}))
    few = family_of(items, "east")
    assert whole.space_sha256 == few.space_sha256
    assert whole.num_weights == few.num_weights
