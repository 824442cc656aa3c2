from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from policies.plans.drafting import complete_plan, recalibrate
from policies.plans.plan import Plan
from policies.plans.price import (
    FINEST_GRID,
    LARGEST_ACCOUNT_EPSILON,
    MAX_ROUNDING_COST,
    PlanImpossibleError,
    RoundShape,
    cap_loss,
    committed_events,
    forecast_bytes,
    largest_grid,
    metrics_shape,
    num_values,
    plan_epsilon,
    plan_epsilon_pld,
    popularity_shape,
    reserved_events,
    rounding_cost,
    schedule,
    sensitivity_in_one_silo,
    spent_epsilon,
    training_shape,
    weight_at,
)
from policies.plans.shapes import GOOD_ROUNDING_COST, MAX_SHARE_STD, signal_range
from policies.silo_policy import AccountBudget
from policies.validation import PolicyFileError
from privacy.accounting import (
    Spending,
    UnsupportedEventError,
    additive_delta,
    additive_delta_share,
    admit,
    epsilon_pld,
)
from privacy.budget import Budget, RenyiFilter, ZcdpFilter
from privacy.calibration import CalibrationError
from privacy.events import (
    EventCount,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    SelfComposedEvent,
    clamp_probability_of,
)
from privacy.noise import MIN_SHARE_STD, DiscreteGaussian, NoiseShare
from tests.contracts.decision_scene import ORDERS, altered, make_draft, make_plan

MOVIELENS: dict[str, Any] = {"catalogue_items": 3883, "target_delta": 1e-5}
EVERY_FAMILY: list[dict[str, Any]] = [
    {"family": "item-graph"},
    {"family": "popularity"},
    {"family": "linear", "features": 8},
    {"family": "linear", "features": 8, "sample_rate": 0.1, "max_silos_per_user": 2, "max_burned_rounds": 2},
    {"family": "item-graph", "metrics_epsilon": 0.3, "holdout": "random"},
    {"family": "item-graph", "colluding_silos": 3, "max_silos_per_user": 4},
    {"family": "item-graph", "filter": RenyiFilter(orders=ORDERS)},
    {"family": "item-graph", "max_users_per_silo": 2_000_000},
    {"family": "popularity", "target_epsilon": 60.0, "target_delta": 1e-9},
    {"family": "item-graph", "target_epsilon": 0.05},
    {"family": "autoencoder"},
    {
        "family": "autoencoder",
        "min_silos": 3,
        "max_burned_rounds": 6,
        "metrics_epsilon": 0.2,
        "holdout": "last",
    },
    {"family": "autoencoder", "noise_placement": "silo", "local_steps": 4, "min_silos": 2},
    {"family": "autoencoder", "noise_placement": "silo", "local_steps": 4, "sample_rate": 0.1, "rounds": 9},
    {"family": "autoencoder", "sample_rate": 0.05, "max_silos_per_user": 2, "bias_epsilon": 0.0},
    {"silos": ("a", "b")},
    {"silos": tuple(f"s{number}" for number in range(16)), "colluding_silos": 5},
]
every_family = pytest.mark.parametrize("changes", EVERY_FAMILY, ids=str)


def training(plan: Plan) -> RoundShape:
    return next(shape for shape in schedule(plan) if shape.purpose == "training")


def metrics(plan: Plan) -> RoundShape:
    shape = metrics_shape(plan)
    assert shape is not None
    return shape


def test_the_figures_of_the_design_note() -> None:
    """Epsilon 4, delta 1e-5: 1.158 under tight zCDP, 1.257 under six orders; 21 bits at four silos."""
    plan = make_plan(**MOVIELENS)
    shape = training(plan)
    assert plan.privacy.noise_multiplier == pytest.approx(1.158, abs=6e-4)
    assert (shape.layout.bits, shape.layout.values_per_slot) == (21, 2)
    assert shape.values == 3883 * 3884 // 2
    renyi = make_plan(**MOVIELENS, filter=RenyiFilter(orders=ORDERS))
    assert renyi.privacy.noise_multiplier == pytest.approx(1.257, abs=2e-3)


def test_the_grid_is_the_largest_the_formula_allows() -> None:
    plan = make_plan(**MOVIELENS)
    shape = training(plan)
    budgeted, headroom_stds = 2 ** (shape.layout.bits - 1), shape.headroom / shape.share_std

    def needed(grid: int) -> float:
        stds = headroom_stds * plan.privacy.noise_multiplier / math.sqrt(plan.num_noise_shares)
        return grid * (0.03 * plan.max_users_per_silo + stds)

    assert needed(plan.privacy.grid - 1) <= budgeted < needed(plan.privacy.grid + 2)
    assert largest_grid(plan) == plan.privacy.grid
    assert make_plan(max_users_per_silo=1000).privacy.grid == FINEST_GRID


@pytest.mark.parametrize(
    ("silos", "colluders", "shares"), [(4, 1, 3), (4, 2, 2), (4, 3, 1), (2, 1, 1), (9, 4, 5)]
)
def test_shares_outside_the_collusion_add_up_to_the_promise(silos: int, colluders: int, shares: int) -> None:
    plan = make_plan(silos=tuple(f"s{number}" for number in range(silos)), colluding_silos=colluders)
    shape = training(plan)
    promised = plan.privacy.noise_multiplier * plan.privacy.grid
    assert shape.share_std * math.sqrt(shares) == pytest.approx(promised, rel=1e-12)
    assert isinstance(shape.event, GaussianEvent)
    assert shape.event.noise_multiplier == pytest.approx(promised / shape.sensitivity, rel=1e-12)


def test_a_person_in_m_silos_costs_as_if_noise_were_m_times_smaller() -> None:
    one, two = make_plan(), make_plan(max_silos_per_user=2)
    assert two.privacy.noise_multiplier == pytest.approx(2 * one.privacy.noise_multiplier, rel=1e-5)
    understated = altered(one, {"privacy.max_silos_per_user": 2})
    assert training(understated).sensitivity == 2 * training(one).sensitivity
    assert plan_epsilon(understated) > 1.9 * plan_epsilon(one)


def test_eps_four_in_two_silos_is_nine_not_six() -> None:
    """The figure of the design note: composing the ledgers of two silos would say 6.0."""
    plan = altered(make_plan(target_delta=1e-5), {"privacy.max_silos_per_user": 2})
    assert plan_epsilon(plan) == pytest.approx(9.1, abs=0.15)


def test_everybody_is_assumed_in_every_silo_unless_somebody_declares_less() -> None:
    assert make_plan(max_silos_per_user=None).privacy.max_silos_per_user == 4


@every_family
def test_a_completed_plan_keeps_its_promise_closely(changes: dict[str, Any]) -> None:
    plan = make_plan(**changes)
    spent = plan_epsilon(plan)
    assert spent <= plan.privacy.target_epsilon
    assert spent >= 0.995 * plan.privacy.target_epsilon
    assert plan_epsilon_pld(plan) <= 1.001 * plan.privacy.target_epsilon


@every_family
def test_levels_of_every_shape_fit_their_bits_exactly(changes: dict[str, Any]) -> None:
    for shape in set(schedule(make_plan(**changes))):
        top = shape.signal_max + shape.headroom - shape.offset
        assert 0 <= top <= shape.layout.max_level
        assert top >= shape.layout.max_level - 1
        assert shape.signal_min <= 0 < shape.signal_max
        assert shape.layout.values == shape.values


@every_family
def test_clamped_noise_costs_at_most_a_hundredth_of_delta(changes: dict[str, Any]) -> None:
    plan = make_plan(**changes)
    clamped = sum(clamp_probability_of(event) * count for event, count in reserved_events(plan))
    # whatever the account composes it with, and a thousand times over
    total = 1000 * additive_delta(clamped, LARGEST_ACCOUNT_EPSILON)
    assert 0 < total <= additive_delta_share(plan.privacy.target_delta)


def test_no_policy_opens_a_larger_account_than_the_headroom_is_made_for() -> None:
    AccountBudget(epsilon=LARGEST_ACCOUNT_EPSILON, delta=1e-6, scope="lifetime", filter="zcdp")
    with pytest.raises(ValidationError):
        AccountBudget(epsilon=LARGEST_ACCOUNT_EPSILON + 1e-9, delta=1e-6, scope="lifetime", filter="zcdp")


@pytest.mark.parametrize("target_delta", [1e-30, 0.01])
@pytest.mark.parametrize("target_epsilon", [0.1, 100.0])
def test_headroom_of_the_extremes(target_epsilon: float, target_delta: float) -> None:
    promise: dict[str, Any] = {"target_epsilon": target_epsilon, "target_delta": target_delta}
    plan = make_plan(family="popularity", max_interactions_per_user=20, **promise)
    budget = Budget(epsilon=target_epsilon, delta=target_delta, filter=ZcdpFilter())
    admit(Spending.of(reserved_events(plan), budget.filter), budget)


@every_family
def test_the_charged_term_covers_the_samplers_own_tail(changes: dict[str, Any]) -> None:
    plan = make_plan(**changes)
    for shape in set(schedule(plan)):
        std = shape.share_std_among(plan.fewest_contributors) * math.sqrt(shape.steps)
        tail = DiscreteGaussian(std).log_tail_probability(shape.headroom)
        clamped = plan.num_silos * shape.values * math.exp(tail)
        assert clamp_probability_of(shape.event) >= clamped


def test_a_tiny_delta_and_a_large_epsilon_widen_the_headroom() -> None:
    shape = training(make_plan(target_epsilon=20.0, target_delta=1e-9, catalogue_items=3883))
    assert shape.headroom > 11 * shape.share_std
    assert shape.share_std >= MIN_SHARE_STD


@pytest.mark.parametrize("family", ["item-graph", "popularity"])
def test_statistics_of_any_history_stay_within_the_grid(family: str) -> None:
    for interactions in (1, 2, 7, 50, 200):
        weight = weight_at(family, FINEST_GRID, interactions)
        terms = interactions * (interactions + 1) // 2 if family == "item-graph" else interactions
        assert weight**2 * terms <= FINEST_GRID**2 < (weight + 1) ** 2 * terms


def test_the_loss_at_the_cap_is_what_the_design_note_measured() -> None:
    """Cap 200 at s = 8192: 1.4 %."""
    assert cap_loss(make_plan(max_users_per_silo=1000)) == pytest.approx(0.0135, abs=1e-3)
    assert cap_loss(make_plan(family="linear")) == 0.0


def test_a_popularity_sum_never_clips_a_count() -> None:
    for users in (1000, 4096, 10**6):
        plan = make_plan(family="popularity", max_users_per_silo=users)
        assert training(plan).signal_max >= users * plan.privacy.grid


def test_large_silos_get_a_slot_for_each_value_instead_of_a_useless_grid() -> None:
    shape = training(make_plan(max_users_per_silo=1_000_000))
    assert (shape.grid, shape.layout.values_per_slot) == (FINEST_GRID, 1)
    assert shape.signal_max >= 0.03 * 1_000_000 * FINEST_GRID


def test_a_rounded_sum_is_charged_for_its_rounding() -> None:
    plan = make_plan(family="linear", features=8)
    values, grid = num_values(plan), plan.privacy.grid
    assert values == 300 * 8 + 300
    assert sensitivity_in_one_silo(plan) >= grid + math.sqrt(values)
    assert math.sqrt(values) <= MAX_ROUNDING_COST * grid
    event = training(plan).event
    assert isinstance(event, GaussianEvent)
    assert event.noise_multiplier < plan.privacy.noise_multiplier
    assert training(plan).signal_min == -training(plan).signal_max


def test_a_sampled_plan_is_a_sampled_event_under_renyi() -> None:
    plan = make_plan(family="linear", features=8, sample_rate=0.2, max_silos_per_user=3)
    event = training(plan).event
    assert isinstance(event, PoissonSampledGaussianEvent)
    assert (event.sample_rate, event.max_silos_per_user) == (0.2, 3)
    assert event.noise_multiplier == pytest.approx(
        plan.privacy.noise_multiplier * plan.privacy.grid / training(plan).sensitivity
    )
    with pytest.raises(UnsupportedEventError):
        plan_epsilon(plan, ZcdpFilter())


def test_rounds_burned_rounds_and_metrics_are_all_reserved() -> None:
    plan = make_plan(
        family="linear", rounds=5, max_burned_rounds=2, metrics_epsilon=0.2, holdout="random", features=2
    )
    assert [shape.purpose for shape in schedule(plan)] == ["training"] * 5 + ["metrics"]
    training_events, metrics_events = reserved_events(plan)
    assert (training_events.count, metrics_events.count) == (7, 1)
    unburned = make_plan(family="linear", rounds=5, metrics_epsilon=0.2, holdout="random", features=2)
    assert plan.privacy.noise_multiplier > unburned.privacy.noise_multiplier


def test_metrics_cost_their_epsilon_as_if_alone_and_training_pays_the_rest() -> None:
    plain = make_plan()
    plan = make_plan(metrics_epsilon=0.5, holdout="last")
    event = metrics(plan).event
    alone = make_plan(target_epsilon=0.5)
    assert isinstance(event, GaussianEvent)
    assert event.noise_multiplier == pytest.approx(alone.privacy.noise_multiplier, rel=1e-4)
    assert plan.privacy.noise_multiplier > plain.privacy.noise_multiplier
    assert metrics(plan).signal_max >= plan.max_users_per_silo * FINEST_GRID


def test_metrics_that_use_up_the_promise_are_refused() -> None:
    with pytest.raises(CalibrationError):
        complete_plan(make_draft(metrics_epsilon=4.5, holdout="random"))


def test_upload_is_close_to_float32() -> None:
    traffic = forecast_bytes(make_plan(**MOVIELENS))
    assert traffic.values == 7_540_786
    assert traffic.ratio_to_float32 <= 1.01
    assert 1.9 * traffic.upload_bytes <= traffic.download_bytes <= 2.1 * traffic.upload_bytes
    verified = forecast_bytes(make_plan(**MOVIELENS), verify_sums=1.0)
    assert verified.download_bytes == traffic.download_bytes + 3 * traffic.upload_bytes


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"privacy.noise_multiplier": 1e-4}, "privacy.noise_multiplier"),
        ({"privacy.noise_multiplier": 1e6, "privacy.grid": 2**20}, "privacy.noise_multiplier"),
        ({"privacy.grid": 1000}, "privacy.grid"),
        ({"privacy.grid": 2**30, "max_users_per_silo": 2**31}, "privacy.grid"),
    ],
)
def test_impossible_plans_say_where(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(PlanImpossibleError) as caught:
        schedule(altered(make_plan(), changes))
    assert caught.value.where == where
    assert caught.value.remedy


def test_the_coarsest_grid_is_where_ten_units_are_left_at_the_cap() -> None:
    plan = make_plan(max_users_per_silo=1000)
    coarsest = math.ceil(10 * math.sqrt(200 * 201 / 2))
    assert weight_at("item-graph", coarsest, 200) == 10
    assert schedule(altered(plan, {"privacy.grid": coarsest}))
    with pytest.raises(PlanImpossibleError, match="long histories would vanish"):
        schedule(altered(plan, {"privacy.grid": coarsest - 1}))


def test_a_grid_too_coarse_for_rounded_gradients_is_refused() -> None:
    plan = make_plan(family="linear", features=8)
    coarsest = math.ceil(math.sqrt(num_values(plan)) / MAX_ROUNDING_COST)
    assert schedule(altered(plan, {"privacy.grid": coarsest}))
    with pytest.raises(PlanImpossibleError, match="rounding would cost"):
        schedule(altered(plan, {"privacy.grid": coarsest - 1}))


def test_a_draft_that_makes_no_sense_names_every_field() -> None:
    with pytest.raises(PolicyFileError) as caught:
        complete_plan(make_draft(target_epsilon=0.0, silos=("a", "A b"), max_users_per_silo=0))
    fields = {problem.field for problem in caught.value.problems}
    assert {"privacy.target_epsilon", "max_users_per_silo"} <= fields
    assert any(field.startswith("silos") for field in fields)


def test_more_noise_or_more_epsilon_move_the_price_the_right_way() -> None:
    plan = make_plan()
    louder = altered(plan, {"privacy.noise_multiplier": 2 * plan.privacy.noise_multiplier})
    assert plan_epsilon(louder) < plan_epsilon(plan)
    assert make_plan(target_epsilon=8.0).privacy.noise_multiplier < plan.privacy.noise_multiplier


# ── trainings of many rounds ──

PATIENT: dict[str, Any] = {
    "family": "autoencoder",
    "silos": tuple(f"s{number}" for number in range(6)),
    "colluding_silos": 2,
    "min_silos": 2,
}


@pytest.mark.parametrize("contributors", [4, 5, 6])
def test_fewer_silos_add_larger_shares_and_keep_the_same_promise(contributors: int) -> None:
    """Whoever is absent, the shares outside the collusion add up to what is charged."""
    shape = training(make_plan(**PATIENT))
    outside = contributors - 2
    assert shape.num_shares_among(contributors) == outside
    delivered = shape.share_std_among(contributors) * math.sqrt(outside) / shape.sensitivity
    assert isinstance(shape.event, GaussianEvent)
    assert delivered == pytest.approx(shape.event.noise_multiplier, rel=1e-12)
    NoiseShare(
        shape.share_std_among(contributors),
        num_shares=outside,
        sensitivity=shape.sensitivity,
        promised=shape.event,
    )


def test_the_full_roster_has_the_share_of_the_shape_to_the_last_bit() -> None:
    for changes in (PATIENT, {"family": "autoencoder", "noise_placement": "silo"}, {}):
        plan = make_plan(**changes)
        for shape in set(schedule(plan)):
            assert shape.share_std_among(plan.num_silos) == shape.share_std
            assert shape.num_shares_among(plan.num_silos) == plan.num_noise_shares


def test_a_silo_whose_own_noise_suffices_does_not_care_who_is_absent() -> None:
    shape = training(make_plan(family="autoencoder", noise_placement="silo", min_silos=2))
    assert {shape.share_std_among(contributors) for contributors in (2, 3, 4)} == {shape.share_std}
    assert {shape.num_shares_among(contributors) for contributors in (2, 3, 4)} == {1}


@pytest.mark.parametrize("contributors", [1, 3, 7])
def test_no_share_is_made_for_fewer_silos_than_planned_or_more_than_there_are(contributors: int) -> None:
    shape = training(make_plan(**PATIENT))
    with pytest.raises(PlanImpossibleError, match="4 to 6 were planned"):
        shape.share_std_among(contributors)


def test_headroom_is_made_for_the_largest_share_that_may_occur() -> None:
    plan = make_plan(**PATIENT)
    burned = plan.training.max_burned_rounds
    everybody = make_plan(**(PATIENT | {"min_silos": None, "max_burned_rounds": burned}))
    ratio = training(plan).headroom / training(everybody).headroom
    assert ratio == pytest.approx(math.sqrt(4 / 2), rel=1e-3)


def test_counts_before_a_training_are_those_of_the_popularity_family() -> None:
    """Same sensitivity and noise for the same epsilon; the grid is the finest there is."""
    plan = make_plan(family="autoencoder", target_epsilon=4.0, bias_epsilon=0.7, max_users_per_silo=10**6)
    alone = training(make_plan(family="popularity", target_epsilon=0.7))
    shape = schedule(plan)[0]
    assert (shape.purpose, shape.values, shape.grid) == ("popularity", plan.catalogue.items, FINEST_GRID)
    assert shape.sensitivity == FINEST_GRID
    assert isinstance(shape.event, GaussianEvent)
    assert isinstance(alone.event, GaussianEvent)
    assert shape.event.noise_multiplier == pytest.approx(alone.event.noise_multiplier, rel=1e-4)
    assert shape.signal_max >= 10**6 * FINEST_GRID
    two = schedule(make_plan(family="autoencoder", max_silos_per_user=2))[0]
    assert two.sensitivity == 2 * FINEST_GRID


def test_the_rounds_of_a_trained_plan_stand_in_the_order_of_the_job() -> None:
    plan = make_plan(family="autoencoder", rounds=3, metrics_epsilon=0.2, holdout="random")
    assert [shape.purpose for shape in schedule(plan)] == ["popularity", *["training"] * 3, "metrics"]
    assert popularity_shape(make_plan(family="autoencoder", bias_epsilon=0.0)) is None
    assert popularity_shape(make_plan()) is None


@pytest.mark.parametrize(("burned", "counts"), [(0, 1), (1, 2), (5, 2)])
def test_counts_may_burn_once_where_anything_may(burned: int, counts: int) -> None:
    plan = make_plan(family="autoencoder", rounds=8, max_burned_rounds=burned)
    reserved = dict(reserved_events(plan))
    assert reserved[training_shape(plan).event] == 8 + burned
    assert reserved[schedule(plan)[0].event] == counts


def test_places_of_a_job_commit_the_events_of_their_rounds() -> None:
    plan = make_plan(family="autoencoder", rounds=4, max_burned_rounds=2, metrics_epsilon=0.2, holdout="last")
    popularity, step, *_, last = (shape.event for shape in schedule(plan))
    places = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 1), (6, 1)]
    assert committed_events(plan, places) == (
        EventCount(popularity, 1),
        EventCount(step, 3),
        EventCount(last, 1),
    )
    assert committed_events(plan, []) == ()


def test_the_epsilon_of_a_job_grows_with_its_rounds_and_ends_below_the_promise() -> None:
    plan = make_plan(family="autoencoder", rounds=20, max_burned_rounds=3)
    spent = [spent_epsilon(plan, committed_events(plan, [(r, 1) for r in range(1, k)])) for k in range(1, 23)]
    assert spent[0] == 0.0
    assert all(before < after for before, after in pairwise(spent))
    assert spent[-1] < plan_epsilon(plan) <= plan.privacy.target_epsilon
    for done in (2, 8, 21):
        events = committed_events(plan, [(r, 1) for r in range(1, done)])
        assert epsilon_pld(events, plan.privacy.target_delta) <= 1.001 * spent[done - 1]


def test_local_steps_are_composed_one_by_one() -> None:
    """Four local steps in nine rounds cost what thirty-six rounds of one step cost, by both accountants."""
    local = make_plan(family="autoencoder", noise_placement="silo", rounds=9, local_steps=4, bias_epsilon=0.0)
    flat = make_plan(family="autoencoder", noise_placement="silo", rounds=36, bias_epsilon=0.0)
    shape = training(local)
    assert shape.event == SelfComposedEvent(event=shape.step_event, count=4)
    assert local.privacy.noise_multiplier == flat.privacy.noise_multiplier
    assert shape.sensitivity == training(flat).sensitivity
    assert plan_epsilon(local) == plan_epsilon(flat)
    assert plan_epsilon_pld(local) == pytest.approx(plan_epsilon_pld(flat), rel=1e-6)


def test_levels_of_local_steps_hold_all_steps_and_their_noise() -> None:
    changes: dict[str, Any] = {"family": "autoencoder", "noise_placement": "silo", "bias_epsilon": 0.0}
    one = make_plan(**changes)
    four = altered(one, {"training.local_steps": 4, "training.local_learning_rate": 1.0})
    shape = training(four)
    assert signal_range(four, 8192) == 4 * signal_range(one, 8192)
    assert shape.headroom == pytest.approx(2 * training(one).headroom, rel=1e-3)
    assert shape.share_std == training(one).share_std
    assert 4 * shape.step_signal_max <= shape.signal_max < 4 * (shape.step_signal_max + 1)
    assert 4 * shape.step_signal_min >= shape.signal_min > 4 * (shape.step_signal_min - 1)
    assert (training(one).step_signal_min, training(one).step_signal_max) == (
        training(one).signal_min,
        training(one).signal_max,
    )


def test_a_trained_sum_wastes_little_on_rounding() -> None:
    plan = make_plan(family="autoencoder")
    assert num_values(plan) == 2 * 80 * 32 + 32
    assert rounding_cost(plan) == pytest.approx(math.sqrt(num_values(plan)) / plan.privacy.grid, rel=0.01)
    assert rounding_cost(plan) <= 0.006
    assert rounding_cost(make_plan()) == 0.0
    wide = make_plan(family="autoencoder", features=300, hidden=1000, expected_batch_size=2e5)
    assert rounding_cost(wide) <= 0.006
    assert training(wide).share_std * math.sqrt(2) < MAX_SHARE_STD


def test_a_small_batch_shares_slots_and_rounds_a_little_coarser() -> None:
    plan = make_plan(family="autoencoder", sample_rate=0.05)
    assert training(plan).layout.values_per_slot == 2
    assert rounding_cost(plan) <= GOOD_ROUNDING_COST
    assert forecast_bytes(plan).upload_bytes < forecast_bytes(make_plan(family="autoencoder")).upload_bytes


def test_popularity_training_and_metrics_share_one_promise() -> None:
    plain = make_plan(family="autoencoder", bias_epsilon=0.0)
    counted = make_plan(family="autoencoder", bias_epsilon=1.0)
    measured = make_plan(family="autoencoder", bias_epsilon=1.0, metrics_epsilon=0.5, holdout="random")
    noises = [plan.privacy.noise_multiplier for plan in (plain, counted, measured)]
    assert noises == sorted(noises)
    assert len(set(noises)) == 3


def test_another_promise_of_the_same_plan_keeps_its_other_releases() -> None:
    plan = make_plan(family="autoencoder")
    cheaper = recalibrate(plan, 2.0)
    assert cheaper.privacy.noise_multiplier > plan.privacy.noise_multiplier
    assert cheaper.model == plan.model
    assert plan_epsilon(cheaper) <= 2.0
    assert recalibrate(plan, 4.0) == plan
    with pytest.raises(PolicyFileError, match="leaves nothing"):
        recalibrate(plan, 1.0)


def test_a_price_that_no_noise_can_keep_makes_a_plan_impossible_not_a_crash() -> None:
    one_order = RenyiFilter(orders=(32.0,))
    plan = make_plan(metrics_epsilon=1.0, holdout="random", filter=one_order)
    with pytest.raises(PlanImpossibleError) as caught:
        schedule(altered(plan, {"releases.metrics.epsilon": 0.01}))
    assert caught.value.where == "releases.metrics.epsilon"


def test_options_that_mean_nothing_to_a_family_are_refused_all_at_once() -> None:
    with pytest.raises(PolicyFileError) as caught:
        complete_plan(make_draft(rounds=3, decay="linear", clipping="automatic", round_minutes=5.0))
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"training.rounds", "training.decay", "privacy.clipping", "protection.round_minutes"}
    with pytest.raises(PolicyFileError, match="known here: family, rank") as caught:
        complete_plan(make_draft(hidden=3, start_from="ab" * 32))
    assert {problem.field for problem in caught.value.problems} == {"model.hidden", "model.start_from"}
