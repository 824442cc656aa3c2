from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from policies.plans.price import RoundShape, schedule
from privacy.dpsgd import PerUserGradients
from privacy.errors import DataError, UsageError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.models import session as session_module
from silo.models.base import State, get_family
from silo.models.trainer import CATALOGUE, MAX_WEIGHT, CheckpointError, GradientFamily, TrainingDivergedError
from tests.contracts.family_contract import (
    NUM_ITEMS,
    make_catalogue,
    make_interactions,
    make_plan,
    random_histories,
)

MODEL: dict[str, Any] = {"family": "autoencoder", "features": 4, "hidden": 3}
COUNTED = {"bias": {"noised": True, "epsilon": 1.0}}
TRAINING: dict[str, Any] = {
    "rounds": 5,
    "expected_batch_size": 120.0,
    "optimizer": "adam",
    "learning_rate": 0.03,
    "decay": "linear",
    "second_moment_decay": 0.99,
}
PRIVACY: dict[str, Any] = {
    "contribution_norm": None,
    "max_grad_norm": 0.5,
    "grid": 2048,
    "clipping": "automatic",
}
ALONE = {"noise_placement": "silo", "colluding_silos": 3}
NAMES = ("encoder.weight", "encoder.bias", "decoder.weight")


def make_family(
    training: dict[str, Any] | None = None,
    privacy: dict[str, Any] | None = None,
    *,
    model: dict[str, Any] | None = None,
    catalogue: Catalogue | None = None,
    start: State | None = None,
) -> GradientFamily:
    catalogue = catalogue or make_catalogue()
    plan = make_plan(
        catalogue,
        MODEL | (model or {}),
        training=TRAINING | (training or {}),
        privacy=PRIVACY | (privacy or {}),
        protection={"min_silos": 2, "round_minutes": 5.0},
    )
    family = get_family(plan)(plan, catalogue, start=start)
    assert isinstance(family, GradientFamily)
    return family


def training_shape(family: GradientFamily) -> RoundShape:
    return schedule(family.plan)[-1]


def rows_of(family: GradientFamily, seed: int, num_users: int = 30) -> Interactions:
    return make_interactions(random_histories(seed, num_users=num_users), family.catalogue)


def flat(state: State) -> np.ndarray:
    return np.concatenate([state[name].ravel() for name in NAMES])


def random_sums(shape: RoundShape, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-50_000, 50_000, shape.values)


# ── the optimiser, bit for bit ───────────────────────────────────────────────────────────────────────────


class PlainAdam:
    """Adam on Python's own floats: IEEE doubles, one correctly rounded operation after the other."""

    def __init__(self, weights: np.ndarray, rounds: int) -> None:
        self.weights = [float(weight) for weight in weights]
        self.first = [0.0] * len(weights)
        self.second = [0.0] * len(weights)
        self.first_decay = self.second_decay = 1.0
        self.rounds, self.step_number = rounds, 0

    def step(self, sums: np.ndarray, contributors: int) -> None:
        scale = 0.5 / (2048 * (120.0 * (contributors / 4) * 1))
        self.first_decay *= 0.9
        self.second_decay *= 0.99
        rate = 0.03 * (self.rounds - self.step_number) / self.rounds
        self.step_number += 1
        for i, total in enumerate(sums.tolist()):
            gradient = float(total) * scale
            self.first[i] = 0.9 * self.first[i] + (1 - 0.9) * gradient
            self.second[i] = 0.99 * self.second[i] + (1 - 0.99) * (gradient * gradient)
            mean = self.first[i] / (1 - self.first_decay)
            spread = math.sqrt(self.second[i] / (1 - self.second_decay))
            self.weights[i] -= rate * (mean / (spread + 1e-8))


def test_adam_is_the_elementwise_arithmetic_of_doubles() -> None:
    """No power, no sum in an order of the machine's, nothing fused: equal bits, not nearly equal."""
    family = make_family()
    shape, state = training_shape(family), family.initial_state()
    plain = PlainAdam(flat(state), rounds=5)
    for round_index, contributors in enumerate((4, 3, 4, 2, 4)):
        sums = random_sums(shape, round_index)
        state = family.absorb(state, sums, round_index, shape, contributors)
        plain.step(sums, contributors)
        assert flat(state).tolist() == plain.weights


def test_sgd_is_the_elementwise_arithmetic_of_doubles() -> None:
    family = make_family({"optimizer": "sgd", "second_moment_decay": 0.999, "decay": "none"})
    shape, state = training_shape(family), family.initial_state()
    plain = flat(state).tolist()
    for round_index in range(3):
        sums = random_sums(shape, round_index)
        state = family.absorb(state, sums, round_index, shape, 4)
        scale = 0.5 / (2048 * 120.0)
        plain = [w - 0.03 * (float(s) * scale) for w, s in zip(plain, sums.tolist(), strict=True)]
    assert flat(state).tolist() == plain
    assert set(state) == set(NAMES)


def test_adam_agrees_with_torchs() -> None:
    family = make_family({"decay": "none", "learning_rate": 0.1})
    shape, state = training_shape(family), family.initial_state()
    weights = torch.tensor(flat(state), requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.1, betas=(0.9, 0.99))
    for round_index in range(5):
        sums = random_sums(shape, round_index)
        weights.grad = torch.tensor(sums * 0.5 / 2048 / 120.0)
        optimizer.step()
        state = family.absorb(state, sums, round_index, shape, 4)
    np.testing.assert_allclose(flat(state), weights.detach().numpy(), rtol=1e-9)


def test_the_learning_rate_falls_from_the_first_training_round_to_the_last() -> None:
    sgd = {"optimizer": "sgd", "second_moment_decay": 0.999}
    for model, first in (({}, 0), (COUNTED, 1)):
        family = make_family(sgd, model=model)
        shape, start = training_shape(family), family.initial_state()
        sums = random_sums(shape, 1)
        steps = [
            float(np.linalg.norm(flat(family.absorb(start, sums, r, shape, 4)) - flat(start)))
            for r in range(first, first + 5)
        ]
        np.testing.assert_allclose(np.array(steps) / steps[0], [1.0, 0.8, 0.6, 0.4, 0.2])


def test_fewer_contributors_are_divided_by_their_part_of_the_batch() -> None:
    family = make_family({"optimizer": "sgd", "second_moment_decay": 0.999, "decay": "none"})
    shape, start = training_shape(family), family.initial_state()
    sums = random_sums(shape, 1)
    moved = [flat(start) - flat(family.absorb(start, sums, 0, shape, n)) for n in (4, 2)]
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-9)


def test_the_counts_are_kept_as_the_integers_they_are() -> None:
    """A logarithm in the state would differ from processor to processor."""
    family = make_family(model=COUNTED)
    shape = schedule(family.plan)[0]
    sums = np.arange(NUM_ITEMS) * shape.grid
    state = family.absorb(family.initial_state(), sums, 0, shape, 3)
    assert state["popularity"].dtype == np.int64
    np.testing.assert_array_equal(state["popularity"], sums)
    assert int(state["popularity_contributors"]) == 3
    sums += 1
    assert not np.array_equal(state["popularity"], sums)


# ── the federation against one process ───────────────────────────────────────────────────────────────────


def test_silos_together_contribute_the_integers_of_a_plain_loop() -> None:
    """One torch thread, the same physical batches: equal bit for bit over all rounds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        silos = [make_family(model=COUNTED) for _ in range(3)]
        rows = [rows_of(family, seed, 20 + 7 * seed) for seed, family in enumerate(silos)]
        reference = make_family(model=COUNTED)
        state = reference.initial_state()
        for round_index, shape in enumerate(schedule(reference.plan)):
            federated = [
                family.contribute(mine, state, round_index, shape)
                for family, mine in zip(silos, rows, strict=True)
            ]
            expected = plain_sum(reference, rows, state, shape)
            np.testing.assert_array_equal(np.sum(federated, axis=0), expected)
            state = reference.absorb(state, expected + random_sums(shape, round_index), round_index, shape, 3)
    finally:
        torch.set_num_threads(threads)


def plain_sum(
    family: GradientFamily, rows: list[Interactions], state: State, shape: RoundShape
) -> np.ndarray:
    if shape.purpose == "popularity":
        total = np.zeros(NUM_ITEMS, dtype=np.int64)
        for mine in rows:
            for user in range(mine.num_users):
                items = mine.of(f"u{user}")
                total[items] += math.isqrt(shape.grid**2 // len(items))
        return total
    architecture = family.architecture(family.plan, family.catalogue, family.popularity_of(state))
    whole = np.zeros(shape.values, dtype=np.int64)
    for mine in rows:
        module = architecture.module()
        gradients = PerUserGradients(module, architecture.loss_per_user, 0.5, clipping="automatic")
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(torch.from_numpy(state[name]))
        histories = mine.matrix()
        total = gradients.clipped_sum(*architecture.batch(histories, histories))
        whole += np.rint(total * (2048 / 0.5)).astype(np.int64)
    return whole


def test_small_pieces_give_what_one_batch_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_family()
    shape = training_shape(whole)
    expected = whole.contribute(rows_of(whole, 0), whole.initial_state(), 0, shape)
    for at_once, cached in ((7 * NUM_ITEMS, 1 << 28), (7 * NUM_ITEMS, 0), (1, 0)):
        monkeypatch.setattr(session_module, "VALUES_AT_ONCE", at_once)
        monkeypatch.setattr(session_module, "CACHED_BYTES", cached)
        family = make_family()
        found = family.contribute(rows_of(family, 0), family.initial_state(), 0, shape)
        np.testing.assert_allclose(found, expected, atol=1)


def test_a_kept_session_sees_new_rows_and_new_weights() -> None:
    kept = make_family()
    shape, start = training_shape(kept), kept.initial_state()
    moved = kept.absorb(start, random_sums(shape, 0), 0, shape, 4)
    for state, seed in ((start, 0), (moved, 0), (start, 1), (start, 0)):
        fresh = make_family()
        np.testing.assert_array_equal(
            kept.contribute(rows_of(kept, seed), state, 0, shape),
            fresh.contribute(rows_of(fresh, seed), state, 0, shape),
        )


# ── local steps ──────────────────────────────────────────────────────────────────────────────────────────


def test_absorbing_the_sum_of_local_steps_averages_the_silos_weights() -> None:
    """Plain SGD is linear: with ``learning_rate = local_steps · local_learning_rate`` it is FedAvg."""
    training = {"local_steps": 3, "local_learning_rate": 0.5, "learning_rate": 1.5, "optimizer": "sgd"}
    family = make_family(training | {"second_moment_decay": 0.999, "decay": "none"}, ALONE)
    shape, start = training_shape(family), family.initial_state()
    total = np.zeros(shape.values, dtype=np.int64)
    walked = []
    for silo in range(4):
        rows, state = rows_of(family, silo), start
        for step in range(3):
            noised = family.contribute(rows, state, 0, shape) + random_sums(shape, 10 * silo + step) // 50
            state = family.step_locally(state, noised, shape)
            total += noised
        walked.append(flat(state))
    found = flat(family.absorb(start, total, 0, shape, 4))
    np.testing.assert_allclose(found, np.mean(walked, axis=0), atol=1e-12)


def test_local_steps_leave_the_optimiser_alone() -> None:
    family = make_family({"local_steps": 2, "local_learning_rate": 0.5}, ALONE)
    shape, start = training_shape(family), family.initial_state()
    moved = family.step_locally(start, random_sums(shape, 0), shape)
    assert moved.keys() == start.keys()
    for name in start.keys() - set(NAMES):
        np.testing.assert_array_equal(moved[name], start[name])


def test_a_plan_without_local_steps_refuses_them() -> None:
    family = make_family()
    shape = training_shape(family)
    with pytest.raises(UsageError, match="local steps"):
        family.step_locally(family.initial_state(), random_sums(shape, 0), shape)


# ── numbers that are none ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("value", [0, 1, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
def test_no_aggregate_makes_weights_that_are_no_numbers(optimizer: str, value: int) -> None:
    training: dict[str, Any] = {"optimizer": optimizer}
    if optimizer == "sgd":
        training["second_moment_decay"] = 0.999
    family = make_family(training)
    shape, state = training_shape(family), family.initial_state()
    for round_index in range(5):
        try:
            state = family.absorb(state, np.full(shape.values, value), round_index, shape, 4)
        except TrainingDivergedError:
            assert optimizer == "sgd"
            assert abs(value) > 1
        assert np.abs(flat(state)).max() <= MAX_WEIGHT
        assert all(np.isfinite(table).all() for table in state.values())
    if value == 0:
        np.testing.assert_array_equal(flat(state), flat(family.initial_state()))


def test_weights_that_are_not_finite_are_refused() -> None:
    family = make_family()
    shape, state = training_shape(family), family.initial_state()
    state["encoder.bias"][0] = np.inf
    with pytest.raises(TrainingDivergedError) as refusal:
        family.absorb(state, random_sums(shape, 0), 0, shape, 4)
    assert refusal.value.remedy


# ── warm start ───────────────────────────────────────────────────────────────────────────────────────────


def checkpoint() -> State:
    family = make_family()
    shape = training_shape(family)
    saved = family.checkpoint(family.absorb(family.initial_state(), random_sums(shape, 3), 0, shape, 4))
    assert saved is not None
    return saved


def test_a_checkpoint_holds_the_weights_and_the_catalogue_and_no_more() -> None:
    assert set(checkpoint()) == {*NAMES, CATALOGUE}


def test_another_schedule_may_start_from_a_checkpoint() -> None:
    saved = checkpoint()
    sgd = {"optimizer": "sgd", "second_moment_decay": 0.999}
    state = make_family(sgd, model=COUNTED, start=saved).initial_state()
    np.testing.assert_array_equal(flat(state), flat(saved))
    state["encoder.bias"] += 1
    np.testing.assert_array_equal(saved["encoder.bias"], checkpoint()["encoder.bias"])


@pytest.mark.parametrize(
    ("change", "model", "said"),
    [
        pytest.param({}, {"hidden": 2}, "encoder.bias float64", id="other-hidden-units"),
        pytest.param({}, {"features": 5}, "encoder.weight float64", id="other-features"),
        pytest.param({"extra": np.zeros(2)}, {}, "extra", id="an-extra-tensor"),
        pytest.param({"encoder.bias": None}, {}, "encoder.bias", id="a-missing-tensor"),
        pytest.param({"encoder.bias": np.zeros(3, np.float32)}, {}, "float32", id="single-precision"),
        pytest.param({"encoder.bias": np.full(3, np.nan)}, {}, "beyond 100", id="not-a-number"),
        pytest.param({"encoder.bias": np.full(3, 1e3)}, {}, "beyond 100", id="a-huge-weight"),
        pytest.param({CATALOGUE: np.zeros(32, np.uint8)}, {}, "catalogue", id="another-catalogue"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    change: dict[str, np.ndarray | None], model: dict[str, Any], said: str
) -> None:
    start = {name: table for name, table in (checkpoint() | change).items() if table is not None}
    with pytest.raises(CheckpointError, match=said) as refusal:
        make_family(model=model, start=start)
    assert isinstance(refusal.value, DataError)
    assert refusal.value.remedy


def test_a_plan_that_names_a_checkpoint_needs_it() -> None:
    with pytest.raises(CheckpointError, match="was not given"):
        make_family(model={"start_from": "ab" * 32})


def test_a_family_of_statistics_has_nothing_to_start_from() -> None:
    catalogue = make_catalogue()
    plan = make_plan(catalogue, {"family": "popularity"})
    family = get_family(plan)(plan, catalogue)
    assert family.checkpoint({}) is None
    assert family.local_loss(make_interactions([[1]], catalogue), {}) is None
    with pytest.raises(UsageError, match="start from"):
        get_family(plan)(plan, catalogue, start={})
    with pytest.raises(UsageError, match="local steps"):
        family.step_locally({}, np.zeros(NUM_ITEMS, dtype=np.int64), schedule(plan)[0])


def test_popularity_counts_silos_that_took_part() -> None:
    family = make_family(model=COUNTED)
    shape = schedule(family.plan)[0]
    sums = np.zeros(shape.values, dtype=np.int64)
    floors = []
    for contributors in (4, 3):
        state = family.absorb(family.initial_state(), sums, 0, shape, contributors)
        counts = family.popularity_of(state)
        assert counts is not None
        floors.append(counts[0])
    # Four shares of variance σ²/3 each, or three of σ²/2.
    assert floors[0] > 0.5
    assert floors[1] / floors[0] == pytest.approx(math.sqrt((3 / 2) / (4 / 3)))


def test_gradients_that_are_no_numbers_contribute_nothing() -> None:
    """Weights may be finite and scores not; whoever has no gradient then counts as nobody."""
    family = make_family()
    shape, state = training_shape(family), family.initial_state()
    rows = rows_of(family, 0)
    assert family.contribute(rows, state, 0, shape).any()
    state["decoder.weight"] = np.full_like(state["decoder.weight"], 1e308)
    assert not family.contribute(rows, state, 0, shape).any()
