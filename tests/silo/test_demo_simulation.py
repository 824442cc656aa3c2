"""The columns that no federation computes: who pools what, with how much noise, and with which steps."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon, schedule
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.demo.harness import simulations
from silo.demo.local_noise import LOCAL_STEPS, local_noise_plan
from silo.demo.simulation import Simulation, learn, pooled, simulate, simulate_each
from silo.language.space import PlacedCatalogue
from silo.models.recommender import Recommender
from tests.contracts.family_contract import SILOS, make_catalogue, make_interactions, random_histories

ROUNDS = 6


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return make_catalogue()


@pytest.fixture(scope="module")
def rows(catalogue: Catalogue) -> list[Interactions]:
    return [make_interactions(random_histories(seed), catalogue) for seed in range(len(SILOS))]


def draft(catalogue: Catalogue, family: Any, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "silos": SILOS,
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": len(catalogue),
        "family": family,
        "target_epsilon": 4.0,
        "target_delta": 1e-5,
        "max_users_per_silo": 32,
        "max_silos_per_user": 1,
    }
    return complete_plan(Draft(**(fields | changes)))


def autoencoder(catalogue: Catalogue, **changes: Any) -> Plan:
    """Without dropout, whose coins nobody can repeat."""
    fields: dict[str, Any] = {"features": 8, "hidden": 4, "input_dropout": 0.0, "rounds": ROUNDS}
    fields |= {"optimizer": "sgd", "learning_rate": 3.0}
    return draft(catalogue, "autoencoder", **(fields | changes))


def placed(seed: int, num_items: int) -> PlacedCatalogue:
    places = np.random.default_rng(seed).standard_normal((num_items, 4))
    lengths = np.linalg.norm(places, axis=1, keepdims=True)
    return PlacedCatalogue(make_catalogue(num_items).items, places / lengths, "cd" * 32)


def scores(model: Recommender, rows: Interactions) -> np.ndarray:
    return np.asarray(model.scores(rows.matrix()), dtype=np.float64)


def test_pooled_rows_keep_everybody_apart(rows: list[Interactions]) -> None:
    together = pooled(rows)
    assert together.num_users == sum(own.num_users for own in rows)
    assert together.num_interactions == sum(own.num_interactions for own in rows)
    np.testing.assert_array_equal(
        together.matrix().toarray(), np.concatenate([own.matrix().toarray() for own in rows])
    )


def test_a_party_of_all_silos_takes_the_steps_of_the_federation(
    catalogue: Catalogue, rows: list[Interactions]
) -> None:
    """Without noise, pooling changes only the rounding: the divisor stands for the same people."""
    plan = autoencoder(catalogue)
    centre = simulate(Simulation(plan, (pooled(rows),), len(rows), 0.0, is_clamped=False))
    federation = simulate(Simulation(plan, tuple(rows), 1, 0.0, is_clamped=True))
    untrained = simulate(
        Simulation(autoencoder(catalogue, rounds=1, learning_rate=1e-9), tuple(rows), 1, 0.0, is_clamped=True)
    )
    one, other = scores(centre, rows[0]), scores(federation, rows[0])
    moved = np.abs(other - scores(untrained, rows[0])).max()
    assert moved > 0.05
    assert np.abs(one - other).max() < 0.01 * moved


def test_parties_with_lists_of_their_own_learn_from_their_own_places() -> None:
    """Lists of other items, the second longer: each party's steps are those over its own list."""
    lists = [placed(0, 12), placed(1, 20)]
    rows = [
        make_interactions(random_histories(seed, num_items=len(own)), own) for seed, own in enumerate(lists)
    ]
    plan = draft(
        lists[0], "language", architecture="bottleneck", encoder_sha256="ab" * 32, text_dimensions=4,
        hidden=4, rounds=1, input_dropout=0.0, optimizer="sgd", learning_rate=1.0,
        decay="none",
    )  # fmt: skip
    together, state = learn(Simulation(plan, tuple(rows), 1, 0.0, is_clamped=True))
    alone = [learn(Simulation(plan, (own,), 1, 0.0, is_clamped=True))[1] for own in rows]
    start = together[0].initial_state()
    for name, weights in start.items():
        moved = [one[name] - weights for one in (state, *alone)]
        assert np.abs(moved[1] - moved[2]).max() > 1e-4
        # Two of four silos: alone a step divides by a quarter of the people, together by a half.
        np.testing.assert_allclose(moved[0], (moved[1] + moved[2]) / 2, atol=1e-6)
    models = simulate_each(Simulation(plan, tuple(rows), 1, 0.0, is_clamped=True))
    assert [model.scores(own.matrix()).shape[1] for model, own in zip(models, rows, strict=True)] == [12, 20]


def test_a_silo_alone_takes_steps_of_its_own_size(catalogue: Catalogue, rows: list[Interactions]) -> None:
    """Four silos with the same rows learn together what each learns alone."""
    plan = autoencoder(catalogue)
    alone = simulate(Simulation(plan, (rows[0],), 1, 0.0, is_clamped=True))
    together = simulate(Simulation(plan, (rows[0],) * 4, 1, 0.0, is_clamped=True))
    np.testing.assert_allclose(scores(alone, rows[0]), scores(together, rows[0]), atol=2e-3)


@pytest.mark.parametrize("parties", [1, 4])
def test_local_steps_walk_between_two_sums(
    catalogue: Catalogue, rows: list[Interactions], parties: int
) -> None:
    """With plain SGD and a server step of local_steps times the local one, parties that agree walk as one."""
    local = {"noise_placement": "silo", "local_steps": 3, "local_learning_rate": 3.0, "learning_rate": 9.0}
    walked = autoencoder(catalogue, rounds=2, decay="none", bias_epsilon=0.0, **local)
    stepped = autoencoder(catalogue, rounds=6, decay="none", bias_epsilon=0.0)
    one = simulate(Simulation(walked, (rows[0],) * parties, 1, 0.0, is_clamped=True))
    other = simulate(Simulation(stepped, (rows[0],), 1, 0.0, is_clamped=True))
    np.testing.assert_allclose(scores(one, rows[0]), scores(other, rows[0]), atol=2e-3)


def test_noise_has_the_deviation_that_was_asked_for(catalogue: Catalogue, rows: list[Interactions]) -> None:
    """One step of plain SGD from zero shows the noise as it is, scaled by the step."""
    plan = draft(
        catalogue, "linear", features=4, rounds=1, optimizer="sgd", learning_rate=1.0, max_grad_norm=1.0
    )
    [shape] = schedule(plan)
    assert plan.training.expected_batch_size is not None
    scale = shape.share_std / (shape.grid * plan.training.expected_batch_size)

    def spread(parties: tuple[Interactions, ...], silos: int, noise: float) -> float:
        weights = [
            simulate(Simulation(plan, parties, silos, amount, is_clamped=False)).right
            for amount in (0.0, noise, noise, noise, noise)
        ]
        exact, *noised = (np.asarray(table, dtype=np.float64) for table in weights)
        return float(np.std([table - exact for table in noised])) / scale

    assert spread((pooled(rows),), 4, 0.0) == 0.0
    assert spread((pooled(rows),), 4, 0.5) == pytest.approx(0.5, rel=0.2)
    assert spread(tuple(rows), 1, 0.5) == pytest.approx(0.5 * sqrt(len(rows)), rel=0.2)


def test_every_column_has_its_rows_and_its_noise(catalogue: Catalogue, rows: list[Interactions]) -> None:
    plan = autoencoder(catalogue)
    found = simulations(plan, rows)
    promised = sqrt(plan.num_silos - plan.privacy.colluding_silos)
    noise = {name: (len(one.parties), one.silos_per_party, one.noise) for name, one in found.items()}
    assert noise == {
        **{name: (1, 1, pytest.approx(promised)) for name in SILOS},
        "pooled_private": (1, 4, pytest.approx(promised)),
        "pooled_same_noise": (1, 4, 2.0),
        "pooled_plain": (1, 4, 0.0),
        "federated_local_noise": (4, 1, 1.0),
    }
    assert [found[name].parties[0] for name in SILOS] == rows
    assert found["pooled_private"].parties[0].num_users == sum(own.num_users for own in rows)
    assert {one.plan for name, one in found.items() if name != "federated_local_noise"} == {plan}
    assert found["federated_local_noise"].plan == local_noise_plan(plan)


def test_statistics_have_no_local_steps(catalogue: Catalogue, rows: list[Interactions]) -> None:
    assert "federated_local_noise" not in simulations(draft(catalogue, "popularity"), rows)


def test_local_noise_keeps_the_same_promise_alone_in_every_silo(catalogue: Catalogue) -> None:
    plan = autoencoder(catalogue, rounds=12)
    local = local_noise_plan(plan)
    training, privacy = local.training, local.privacy
    assert (training.rounds, training.local_steps) == (3, LOCAL_STEPS)
    assert (privacy.noise_placement, privacy.colluding_silos) == ("silo", plan.num_silos - 1)
    assert 3.9 < plan_epsilon(local) <= plan.privacy.target_epsilon
    shape = schedule(local)[-1]
    assert shape.share_std == pytest.approx(privacy.noise_multiplier * privacy.grid)
    assert local.model == plan.model
    assert local_noise_plan(local) is local
