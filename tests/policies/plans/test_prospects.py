from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from policies.plans.drafting import recalibrate
from policies.plans.price import committed_events, plan_epsilon, reserved_events, schedule
from policies.plans.prospects import (
    USEFUL_REACH,
    OneSumError,
    milestones,
    need_of,
    noise_for,
    rounds_affordable,
    rounds_for,
)
from policies.validation import PolicyFileError
from privacy.accounting import epsilon_of, epsilon_pld
from tests.contracts.decision_scene import altered, make_plan

MOVIELENS: dict[str, Any] = {"catalogue_items": 3883, "target_delta": 1e-5, "max_users_per_silo": 2000}
TRAINED: list[dict[str, Any]] = [
    {"family": "autoencoder"},
    {"family": "autoencoder", "max_burned_rounds": 7, "metrics_epsilon": 0.3, "holdout": "last"},
    {"family": "autoencoder", "noise_placement": "silo", "local_steps": 3, "rounds": 12},
    {"family": "autoencoder", "sample_rate": 0.1, "bias_epsilon": 0.0, "rounds": 25},
    {"family": "linear", "features": 5},
]
trained = pytest.mark.parametrize("changes", TRAINED, ids=str)


@trained
def test_epsilon_on_the_way_is_composed_from_the_events_of_the_rounds(changes: dict[str, Any]) -> None:
    """Every figure again from the bare events, and below it the second accountant's."""
    plan = make_plan(**changes)
    before = 0 if plan.popularity is None else 1
    found = milestones(plan)
    assert found[-1].rounds == plan.training.rounds
    assert [step.rounds for step in found][:before] == [0][:before]
    assert all(one.epsilon < next_.epsilon for one, next_ in pairwise(found))
    assert found[-1].epsilon <= plan_epsilon(plan)
    for step in found:
        shapes = schedule(plan)[: before + step.rounds]
        events = [(shape.event, 1) for shape in shapes]
        by_hand = epsilon_of(events, plan.privacy.target_delta, plan.privacy.filter_spec)
        assert step.epsilon == by_hand


def test_epsilon_on_the_way_is_no_lower_than_the_second_accountants() -> None:
    plan = make_plan(family="autoencoder", rounds=16)
    for step in milestones(plan):
        events = committed_events(plan, [(number, 1) for number in range(1, step.rounds + 2)])
        assert epsilon_pld(events, plan.privacy.target_delta) <= 1.001 * step.epsilon


def test_a_single_sum_has_one_milestone() -> None:
    (only,) = milestones(make_plan())
    assert (only.rounds, only.epsilon) == (1, plan_epsilon(make_plan()))


@pytest.mark.parametrize("epsilon", [1.5, 3.0, 8.0])
def test_the_noise_for_an_epsilon_costs_that_epsilon(epsilon: float) -> None:
    plan = make_plan(family="autoencoder", bias_epsilon=0.5)
    again = recalibrate(plan, epsilon)
    assert noise_for(plan, epsilon) == again.privacy.noise_multiplier
    assert 0.999 * epsilon <= plan_epsilon(again) <= epsilon
    assert epsilon_pld(reserved_events(again), again.privacy.target_delta) <= 1.001 * epsilon


def test_no_noise_makes_a_plan_cheaper_than_its_counts() -> None:
    with pytest.raises(PolicyFileError, match="leaves nothing"):
        noise_for(make_plan(family="autoencoder", bias_epsilon=0.5), 0.5)


@trained
def test_the_rounds_for_an_epsilon_are_the_most_that_cost_no_more(changes: dict[str, Any]) -> None:
    plan = make_plan(**changes)
    for epsilon in (2.0, 4.0, 6.0):
        rounds = rounds_for(plan, epsilon)
        if rounds:
            assert plan_epsilon(altered(plan, {"training.rounds": rounds})) <= epsilon
        assert plan_epsilon(altered(plan, {"training.rounds": rounds + 1})) > epsilon
    assert rounds_for(plan, plan.privacy.target_epsilon) >= plan.training.rounds


def test_no_round_fits_into_what_the_counts_alone_use_up() -> None:
    assert rounds_for(make_plan(family="autoencoder"), 1.0) == 0


def test_more_rounds_than_a_plan_may_have_are_never_said() -> None:
    assert rounds_affordable(make_plan(family="linear"), lambda _: True) == 10_000
    assert rounds_affordable(make_plan(family="linear"), lambda _: False) == 0


def test_statistics_have_no_rounds_to_ask_for() -> None:
    with pytest.raises(OneSumError, match="one secure sum"):
        rounds_for(make_plan(), 2.0)


# ── people: facts of docs/explanation-useful-plans.md (movielens-1m, four silos, one colluder) ──


@pytest.mark.parametrize(
    ("family", "people", "epsilon", "is_useful"),
    [
        ("popularity", 100, 4.0, False),
        ("popularity", 250, 1.0, False),
        ("popularity", 500, 1.0, False),
        ("popularity", 1000, 0.5, False),
        ("popularity", 1000, 1.0, True),
        ("popularity", 4000, 0.25, True),
        ("item-graph", 500, 2.0, False),
        ("item-graph", 500, 4.0, True),
        ("item-graph", 1000, 1.0, False),
        ("item-graph", 1000, 2.0, True),
        ("autoencoder", 500, 4.0, False),
        ("autoencoder", 1000, 1.0, False),
        ("autoencoder", 1000, 2.0, False),
        ("autoencoder", 1000, 4.0, True),
        ("autoencoder", 2000, 1.0, False),
        ("autoencoder", 2000, 2.0, True),
        ("autoencoder", 4000, 0.5, False),
        ("autoencoder", 4000, 1.0, True),
        ("autoencoder", 6040, 0.5, True),
    ],
)
def test_the_rule_says_of_measured_runs_what_they_showed(
    family: Any, people: int, epsilon: float, is_useful: bool
) -> None:
    plan = make_plan(**MOVIELENS, family=family, target_epsilon=epsilon)
    assert (people >= need_of(plan).people) == is_useful


def test_below_a_thousand_people_an_autoencoder_at_epsilon_one_is_pointless() -> None:
    plan = make_plan(**(MOVIELENS | {"max_users_per_silo": 250}), family="autoencoder", target_epsilon=1.0)
    assert need_of(plan).is_pointless
    assert need_of(plan).planned == 1000


@pytest.mark.parametrize("changes", [{}, {"rounds": 240}, {"rounds": 15}], ids=str)
def test_people_needed_hardly_depend_on_the_schedule(changes: dict[str, Any]) -> None:
    usual = need_of(make_plan(**MOVIELENS, family="autoencoder", bias_epsilon=0.0)).people
    other = need_of(make_plan(**MOVIELENS, family="autoencoder", bias_epsilon=0.0, **changes)).people
    assert other == pytest.approx(usual, rel=0.01)


def test_people_needed_grow_with_the_colluders_and_with_noise_in_each_silo() -> None:
    base: dict[str, Any] = MOVIELENS | {"family": "autoencoder", "bias_epsilon": 0.0}
    one, two, local = (
        need_of(make_plan(**base, **changes)).people
        for changes in ({}, {"colluding_silos": 2}, {"noise_placement": "silo"})
    )
    assert two / one == pytest.approx(math.sqrt(3 / 2), rel=0.01)
    assert local / one == pytest.approx(math.sqrt(3), rel=0.01)


def test_a_plan_counts_on_no_more_people_than_its_batch_stands_for() -> None:
    plan = make_plan(**MOVIELENS, family="autoencoder", sample_rate=0.1, expected_batch_size=300.0)
    assert need_of(plan).planned == 3000
    assert need_of(make_plan(**MOVIELENS)).planned == 8000


def test_reach_is_needed_of_everything_that_is_summed() -> None:
    assert set(USEFUL_REACH) == {"popularity", "item-graph", "gradients"}
    few_counts = make_plan(**MOVIELENS, family="autoencoder", bias_epsilon=0.05, target_epsilon=20.0)
    assert need_of(few_counts).people > need_of(altered(few_counts, {"model.bias": "none"})).people
